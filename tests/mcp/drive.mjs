// The client for Node. MCP_NODE names the folder that has its packages.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.MCP_NODE}/index.js`);
const load = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${path}`)).href);
const { Client } = await load("client/index.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const { CallToolResultSchema, CreateTaskResultSchema } = await load("types.js");

const [url, token, command, text] = process.argv.slice(2);
const given = JSON.parse(text);
const headers = token === "-" ? {} : { Authorization: `Bearer ${token}` };
const client = new Client({ name: "test", version: "1" }, { capabilities: {} });

const commands = {
  list: async () => ({ tools: (await client.listTools()).tools.map((tool) => tool.name) }),
  call: async () => {
    const progress = [];
    const options = { onprogress: (told) => progress.push([told.progress, told.total, told.message]) };
    const result = await client.callTool({ name: given.tool, arguments: given.arguments }, undefined, options);
    return { result, progress };
  },
  start: async () => {
    const params = { name: given.tool, arguments: given.arguments, task: { ttl: 60000 } };
    return client.request({ method: "tools/call", params }, CreateTaskResultSchema);
  },
  get: async () => client.experimental.tasks.getTask(given.task),
  end: async () => {
    for (;;) {
      const task = await client.experimental.tasks.getTask(given.task);
      if (!["working", "input_required"].includes(task.status)) {
        return { task, result: await client.experimental.tasks.getTaskResult(given.task, CallToolResultSchema) };
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  },
  cancel: async () => client.experimental.tasks.cancelTask(given.task),
  read: async () => ({ text: (await client.readResource({ uri: given.uri })).contents[0].text }),
};

let answer;
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
  answer = await commands[command]();
} catch (error) {
  answer = { error: String(error.message ?? error) };
}
console.log(JSON.stringify(answer));
await client.close();
process.exit(0);
