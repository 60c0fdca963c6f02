// The client against a running gateway with a real worker: `cargo test --test it -- clients` starts them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { test } from "node:test";

import {
  Client, EventParser, GatewayUnavailable, IncompatibleGateway, OutcomeUnknown, Problem, TaskFailed, TaskRevoked, WaitTimeout,
} from "../dist/index.js";
import { fits, newId, VERSION } from "../dist/transport.js";

const url = process.env.TASKGATE_TEST_URL;
assert.ok(url, "TASKGATE_TEST_URL is not set: run these tests by `cargo test --test it -- clients`");
const client = new Client({ url });
const soon = { timeout: 90 };

test("a submitted task comes back", async () => {
  const task = await client.submit("demo.echo", { args: [1, { a: [null] }], kwargs: { 이름: "값" }, labels: { team: "ops" } });
  assert.deepEqual(await client.wait(task, soon), { args: [1, { a: [null] }], kwargs: { 이름: "값" } });
  assert.deepEqual((await client.task(task)).labels, { team: "ops" });
});

test("canvases give their results", async () => {
  const add = (...args) => ({ task: "demo.add", args });
  assert.equal(await client.wait(await client.submitSignature({ chain: [add(2, 3), { task: "demo.mul", args: [10] }] }), soon), 50);
  assert.deepEqual(await client.wait(await client.submitSignature({ group: [add(1, 1), add(2, 2)] }), soon), [2, 4]);
  const chord = { chord: { header: [add(1, 1), add(2, 2)], body: { task: "demo.xsum" } } };
  assert.equal(await client.wait(await client.submitSignature(chord), soon), 6);
});

test("a failure has type, message and traceback", async () => {
  const failed = await client.wait(await client.submit("demo.fail", { args: ["KeyError", "gone"] }), soon).catch((error) => error);
  assert.ok(failed instanceof TaskFailed);
  assert.equal(failed.type, "KeyError");
  assert.match(failed.message, /gone/);
  assert.match(failed.traceback, /Traceback/);
  const group = await client.submitSignature({ group: [{ task: "demo.add", args: [1, 1] }, { task: "demo.fail" }] });
  await assert.rejects(client.wait(group, soon), (error) => error instanceof TaskFailed && error.type === "ValueError");
});

test("what is held is revoked for certain, and waiting ends in time", async () => {
  const task = await client.submit("demo.add", { args: [1, 2], countdown: 600, eta: undefined });
  await assert.rejects(client.wait(task, { timeout: 0.2 }), WaitTimeout);
  assert.equal((await client.revoke(task, { reason: "not needed" })).verdict, "prevented");
  await assert.rejects(client.wait(task, soon), TaskRevoked);
});

test("what failed of a DAG is resumed", async () => {
  const nodes = { first: { task: "demo.add", args: [1, 2] }, second: { task: "demo.fail", args: ["KeyError"], after: ["first"] } };
  const dag = await client.submitSignature({ dag: { nodes } });
  await assert.rejects(client.wait(dag, soon), TaskFailed);
  const again = await client.resume(dag, { idempotencyKey: `again-${dag.id}` });
  assert.notEqual(again.id, dag.id);
  assert.equal((await client.resume(dag, { idempotencyKey: `again-${dag.id}` })).id, again.id);
  await assert.rejects(client.wait(again, soon), (error) => error instanceof TaskFailed && error.type === "KeyError");
  await assert.rejects(client.resume(await client.submit("demo.add", { args: [1, 2] })), { slug: "not-replayable" });
});

test("times are given as dates", async () => {
  const task = await client.submit("demo.add", { args: [1, 2], eta: new Date(Date.now() + 3_600_000) });
  assert.equal((await client.task(task)).phase, "held");
  await client.revoke(task);
});

test("a refusal names the places", async () => {
  const refused = await client.submit("demo.add", { args: [1, 2], priority: 77 }).catch((error) => error);
  assert.ok(refused instanceof Problem);
  assert.equal(refused.slug, "invalid-request");
  assert.equal(refused.errors[0].pointer, "/priority");
  await assert.rejects(client.result("0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42"), { slug: "task-not-found", status: 404 });
});

test("a batch has a verdict for each", async () => {
  const [good, bad] = await client.batch([{ task: "demo.add", args: [1, 2] }, { task: "" }]);
  assert.equal(await client.wait(good, soon), 3);
  assert.equal(bad.slug, "invalid-request");
  await assert.rejects(client.batch([{ task: "" }], { atomic: true }), Problem);
});

test("a stream ends with the result", async () => {
  const events = [];
  for await (const event of client.stream(await client.submit("demo.progress", { args: [3] }), { lastEventId: "0", ...soon })) events.push(event);
  assert.deepEqual(events.filter((event) => event.kind === "progress").map((event) => event.data.meta.progress), [1, 2, 3]);
  assert.deepEqual(events.map((event) => Number(event.id)), events.map((_, place) => place + 1));
  const { kind, data, id } = events.at(-1);
  assert.equal(kind, "end");
  assert.deepEqual(data.result, { steps: 3 });
  for await (const _ of client.stream(data.task_id, { lastEventId: id, ...soon })) assert.fail("nothing follows the end");
});

test("a stream that is cut goes on where it was", async () => {
  const proxy = await Cutting.start(url, 700);
  try {
    const cut = new Client({ url: proxy.url });
    const task = await client.submit("demo.progress", { args: [20, 0.02] });
    const ids = [];
    for await (const event of cut.stream(task, { lastEventId: "0", ...soon })) ids.push(Number(event.id));
    assert.ok(proxy.cuts > 2, `${proxy.cuts} cuts`);
    assert.deepEqual(ids, ids.map((_, place) => place + 1), "every event once, in order");
    assert.ok(ids.length > 20);
  } finally {
    proxy.stop();
  }
});

test("a stream and a wait end with the caller's signal", async () => {
  const task = await client.submit("demo.add", { args: [1, 2], countdown: 600 });
  const reads = async (signal) => { for await (const _ of client.stream(task, { signal })) continue; };
  await assert.rejects(reads(AbortSignal.timeout(300)), { name: "TimeoutError" });
  await assert.rejects(client.wait(task, { signal: AbortSignal.timeout(300) }), { name: "TimeoutError" });
  const times = async () => { for await (const _ of client.stream(task, { timeout: 0.3 })) continue; };
  await assert.rejects(times(), WaitTimeout);
  await client.revoke(task);
});

test("a lost answer is asked for again and the task is submitted once", async () => {
  const sent = [];
  const fetch = async (_, { body }) => {
    sent.push(JSON.parse(body).task_id);
    if (sent.length === 1) throw new TypeError("fetch failed", { cause: { code: "UND_ERR_SOCKET" } });
    const document = { type: "/problems/id-taken", title: "", status: 409, detail: "" };
    return new Response(JSON.stringify(document), { status: 409, headers: { "content-type": "application/problem+json" } });
  };
  const task = await new Client({ url: "http://gate", fetch }).submit("a.b");
  assert.deepEqual(sent, [task.id, task.id]);
});

test("nobody there, no answer and a stranger are told apart", async () => {
  const failing = (code) => new Client({ url: "http://gate", fetch: async () => { throw new TypeError("fetch failed", { cause: { code } }); } });
  await assert.rejects(failing("ECONNREFUSED").submit("a"), GatewayUnavailable);
  await assert.rejects(failing("ECONNRESET").submit("a"), OutcomeUnknown);
  const answering = (status, headers) => new Client({ url: "http://gate", fetch: async () => new Response("<html>", { status, headers }) });
  await assert.rejects(answering(404).submit("a"), IncompatibleGateway);
  await assert.rejects(answering(200, { "taskgate-version": "99.0.0" }).submit("a"), /taskgate 99\.0\.0/);
  await assert.rejects(answering(503).submit("a"), GatewayUnavailable);
});

test("what JSON would change is refused", async () => {
  await assert.rejects(client.submit("demo.add", { args: [NaN, 1] }), /NaN/);
  await assert.rejects(client.submit("demo.add", { args: [10n, 1] }), /BigInt/);
});

test("a frame that was cut off is no event", () => {
  const parser = new EventParser();
  assert.deepEqual([...parser.feed('retry: 1500\n: hello\nid: 7\nevent: state\ndata: {"a":\r\nda')], []);
  assert.deepEqual([...parser.feed('ta: 1}\n\n')], [{ id: "7", kind: "state", data: { a: 1 } }]);
  assert.equal(parser.retry, 1500);
});

test("later ids sort later", () => {
  const ids = Array.from({ length: 50 }, newId);
  assert.ok(ids.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)));
  assert.equal(new Set(ids).size, 50);
});

test("the version is the binary's", () => {
  const cargo = readFileSync(new URL("../../../Cargo.toml", import.meta.url), "utf8");
  const version = cargo.match(/\[workspace\.package\][^[]*?version = "([^"]+)"/)[1];
  assert.equal(JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version, version);
  assert.equal(VERSION, version);
  assert.ok(fits("0.1.0", "0.2.0") && fits("1.4.0", "1.9.0") && fits("1.4.0", "1.3.0"));
  assert.ok(!fits("0.4.0", "0.2.0") && !fits("1.0.0", "2.0.0") && !fits("2.0.0", "1.9.0"));
});

/** A proxy that cuts every stream after so many bytes. */
class Cutting {
  cuts = 0;

  static async start(target, after) {
    const proxy = new Cutting();
    proxy.server = http.createServer((request, response) => {
      http.get(target + request.url, { headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        let left = answer.headers["content-type"] === "text/event-stream" ? after : Infinity;
        answer.on("data", (chunk) => {
          response.write(chunk.subarray(0, left));
          left -= chunk.length;
          if (left <= 0) {
            proxy.cuts += 1;
            answer.destroy();
            setTimeout(() => response.destroy(), 5);
          }
        });
        answer.on("end", () => response.end());
        answer.on("error", () => {});
      });
    });
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
