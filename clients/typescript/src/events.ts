/**
 * Reads server-sent events, piece by piece, without I/O. A frame counts when its empty line has arrived: what a broken connection cut
 * off is sent again by the gateway, so every event is seen once.
 */

/** One event of a stream. */
export interface TaskEvent {
  /** For `Last-Event-ID`. */
  id: string;
  /** `snapshot`, `state`, `progress` or `end`. */
  kind: string;
  data: Record<string, unknown>;
}

export class EventParser {
  /** The pause before the next connection, in milliseconds. */
  retry = 1000;
  #rest = "";
  #id = "";
  #kind = "";
  #data: string[] = [];

  /** Takes a piece of the stream, cut anywhere. */
  *feed(text: string): Generator<TaskEvent> {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (event) yield event;
    }
  }

  #line(line: string): TaskEvent | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "id") this.#id = value;
    else if (field === "event") this.#kind = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return undefined;
  }

  #dispatch(): TaskEvent | undefined {
    const text = this.#data.join("\n");
    const kind = this.#kind || "message";
    this.#data = [];
    this.#kind = "";
    return text ? { id: this.#id, kind, data: JSON.parse(text) } : undefined;
  }
}
