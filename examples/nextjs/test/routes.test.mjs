// Tests the routes without Next.js, which calls them as functions from Request to Response. ROUTES is the folder of the compiled routes.
import assert from "node:assert/strict";
import { test } from "node:test";

const routes = process.env.ROUTES;
const { POST } = await import(`${routes}/app/api/crawls/route.js`);
const { GET } = await import(`${routes}/app/api/crawls/[id]/events/route.js`);

const start = (body) => POST(new Request("http://page/api/crawls", { method: "POST", body: JSON.stringify(body) }));

test("a crawl is started and its events are relayed to the end", async () => {
  const started = await start({ category: "봉사 공지사항 크롤링" });
  assert.equal(started.status, 202);
  const { id } = await started.json();
  const stream = await GET(new Request("http://page/", { headers: { "last-event-id": "0" } }), { params: Promise.resolve({ id }) });
  const text = await stream.text();
  assert.match(text, /^id: 1\nevent: state\n/);
  assert.match(text, /event: end\ndata: .*"status":"SUCCESS"/);
});

test("a reader that leaves ends the stream behind it", async () => {
  const { id } = await (await start({ category: "봉사 공지사항 크롤링" })).json();
  const stream = await GET(new Request("http://page/"), { params: Promise.resolve({ id }) });
  const reader = stream.body.getReader();
  await reader.read();
  await reader.cancel();
});
