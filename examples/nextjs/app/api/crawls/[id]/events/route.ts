/** The crawl's events for the page's EventSource, which reconnects by itself with `Last-Event-ID`. */
import { gate } from "../../../../../lib/gate";

export async function GET(request: Request, { params }: { params: Promise<{ id: string }> }): Promise<Response> {
  const { id } = await params;
  const last = request.headers.get("last-event-id");
  const events = gate.stream(id, { signal: request.signal, ...(last ? { lastEventId: last } : {}) });
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) return controller.close();
      const { id, kind, data } = value;
      controller.enqueue(encoder.encode(`id: ${id}\nevent: ${kind}\ndata: ${JSON.stringify(data)}\n\n`));
    },
    async cancel() {
      await events.return();
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } });
}
