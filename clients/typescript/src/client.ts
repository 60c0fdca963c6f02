/** The client: submit, batch, wait, stream, revoke. */
import { GatewayUnavailable, OutcomeUnknown, Problem, TaskFailed, TaskRevoked, WaitTimeout } from "./errors.js";
import { EventParser, type TaskEvent } from "./events.js";
import { backoff, newId, open, pause, send, type Transport } from "./transport.js";
import type { Accepted, Batch, Dag, Group, Handle, Result, Revoked, Signature, Task, TaskOptions } from "./types.js";

/** Seconds of one long poll, and of silence after which a stream is dead (a comment comes every 15). */
const LONGEST_POLL = 30;
const STREAM_SILENCE = 45;

export interface ClientOptions {
  /** Default: `http://127.0.0.1:8000`; in a browser the page's own origin. */
  url?: string;
  token?: string;
  /** Seconds for one answer. Default 10. */
  timeout?: number;
  /** For how many seconds `wait` and `stream` go on while nobody answers. Default 60. */
  patience?: number;
  fetch?: typeof fetch;
}

export interface SubmitOptions extends TaskOptions {
  args?: unknown[];
  kwargs?: Record<string, unknown>;
}

export interface WaitOptions {
  /** Seconds. */
  timeout?: number;
  signal?: AbortSignal;
}

export interface StreamOptions extends WaitOptions {
  /** Go on after this event; `"0"` for all from the first. */
  lastEventId?: string;
}

export class Client {
  readonly #transport: Transport;
  readonly #patience: number;

  constructor(options: ClientOptions = {}) {
    const here = (globalThis as { location?: { origin: string } }).location?.origin;
    this.#transport = {
      url: (options.url ?? here ?? "http://127.0.0.1:8000").replace(/\/+$/, ""),
      token: options.token,
      timeout: options.timeout ?? 10,
      fetch: options.fetch ?? ((...request) => fetch(...request)),
    };
    this.#patience = options.patience ?? 60;
  }

  /** Submits one call. When the promise is kept, the task is on disk. */
  async submit(task: string, options: SubmitOptions = {}): Promise<Handle> {
    return this.submitSignature({ task, ...options });
  }

  /** Submits any signature: a task, a chain, a group, a chord or a DAG. */
  async submitSignature(signature: Signature | Dag): Promise<Handle> {
    const isTask = "task" in signature;
    const answer = await send<Accepted>(this.#transport, {
      method: "POST",
      path: "/v1/tasks",
      body: isTask ? { ...signature, task_id: signature.task_id ?? newId() } : signature,
      headers: isTask ? {} : { "idempotency-key": newId() },
    });
    return handle(answer);
  }

  /** Submits many at once; a handle or the problem for each, in their order. `atomic`: all, or none and an exception. */
  async batch(signatures: Signature[], options: { atomic?: boolean } = {}): Promise<(Handle | Problem)[]> {
    const answer = await send<Batch>(this.#transport, {
      method: "POST",
      path: `/v1/tasks/batch${options.atomic ? "?atomic=true" : ""}`,
      body: signatures,
      headers: { "idempotency-key": newId() },
    });
    return answer.items.map((item) =>
      item.problem ? new Problem(item.problem as unknown as Problem["document"]) : handle(item as unknown as Accepted));
  }

  /** What is known now, or after the end within `wait` seconds (at most 60). */
  async result(task: Handle | string, options: { wait?: number; signal?: AbortSignal | undefined } = {}): Promise<Result | Group> {
    const wait = Math.floor(options.wait ?? 0);
    return send(this.#transport, {
      method: "GET",
      path: `/result/${at(task)}`,
      headers: wait >= 1 ? { prefer: `wait=${wait}` } : {},
      signal: options.signal,
      patience: wait,
    });
  }

  /** The return value as soon as there is one; of a group the list of them. Throws `TaskFailed`, `TaskRevoked` or `WaitTimeout`. */
  async wait<T = unknown>(task: Handle | string, options: WaitOptions = {}): Promise<T> {
    const watch = new Watch(idOf(task), options.timeout, this.#patience);
    for (;;) {
      try {
        const body = await this.result(task, { wait: Math.min(LONGEST_POLL, watch.left()), signal: options.signal });
        watch.answered();
        if (body.ready) return outcome(body) as T;
        await pause(watch.cut(watch.left() < 1 ? 100 : 10), options.signal);
      } catch (error) {
        if (!isAway(error)) throw error;
        await pause(watch.away(error), options.signal);
      }
      watch.check();
    }
  }

  /** The events of a task or group until its end. A broken connection is resumed: no event is missing or repeated. */
  async *stream(task: Handle | string, options: StreamOptions = {}): AsyncGenerator<TaskEvent, void, undefined> {
    const watch = new Watch(idOf(task), options.timeout, this.#patience);
    let last = options.lastEventId;
    for (;;) {
      let wait: number;
      try {
        for await (const event of this.#connection(task, last, watch, options.signal)) {
          last = event.id;
          yield event;
          if (event.kind === "end") return;
        }
        if (watch.isOver) return;
        wait = watch.cut(watch.retry);
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof WaitTimeout || !isAway(error)) throw error;
        wait = watch.away(error);
      }
      await pause(wait, options.signal);
      watch.check();
    }
  }

  /** One connection of a stream, until it ends. */
  async *#connection(task: Handle | string, last: string | undefined, watch: Watch, signal?: AbortSignal): AsyncGenerator<TaskEvent> {
    const stop = new AbortController();
    const silence = new Timer(STREAM_SILENCE, () => stop.abort(new Error("the stream is silent")));
    const end = watch.left() < Infinity ? new Timer(watch.left(), () => stop.abort(watch.over())) : undefined;
    const leave = () => stop.abort(signal?.reason);
    signal?.addEventListener("abort", leave, { once: true });
    try {
      const headers = { accept: "text/event-stream", ...(last === undefined ? {} : { "last-event-id": last }) };
      const response = await open(this.#transport, { method: "GET", path: `/v1/tasks/${at(task)}/events`, headers, signal: stop.signal });
      watch.isOver = response.status === 204;
      if (watch.isOver || !response.body) return;
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        watch.retry = parser.retry;
        if (done) return;
        watch.answered();
        silence.restart();
        yield* parser.feed(value);
      }
    } catch (error) {
      throw stop.signal.reason instanceof WaitTimeout ? stop.signal.reason : error;
    } finally {
      signal?.removeEventListener("abort", leave);
      silence.stop();
      end?.stop();
      stop.abort();
    }
  }

  /** Everything about one task. */
  async task(task: Handle | string): Promise<Task> {
    return send(this.#transport, { method: "GET", path: `/v1/tasks/${at(task)}` });
  }

  /** Takes the task back. `verdict`: `prevented` (it will never run), `signalled` (a worker has it) or `too_late`. */
  async revoke(task: Handle | string, options: { terminate?: boolean; signal?: string; reason?: string } = {}): Promise<Revoked> {
    return send(this.#transport, { method: "POST", path: `/v1/tasks/${at(task)}/revoke`, body: options });
  }

  /** Runs again what failed of a DAG, and all that follows it. `task` is any task of the DAG; the handle is that of a new DAG. */
  async resume(task: Handle | string, options: { idempotencyKey?: string } = {}): Promise<Handle> {
    const key = options.idempotencyKey ?? newId();
    const path = `/v1/tasks/${at(task)}/resume`;
    return handle(await send(this.#transport, { method: "POST", path, body: {}, headers: { "idempotency-key": key } }));
  }
}

/** When to stop: at the caller's timeout, or when nobody has answered for the client's patience. */
class Watch {
  retry = 1000;
  /** Nothing will follow. */
  isOver = false;
  readonly #start = Date.now();
  #heard = Date.now();
  #failures = 0;

  constructor(readonly task: string, readonly timeout: number | undefined, readonly patience: number) {}

  /** Seconds. */
  left(): number {
    return this.timeout === undefined ? Infinity : this.timeout - (Date.now() - this.#start) / 1000;
  }

  answered(): void {
    this.#heard = Date.now();
    this.#failures = 0;
  }

  /** The pause before the next try, in milliseconds; throws when the patience is over. */
  away(error: unknown): number {
    if (Date.now() - this.#heard > this.patience * 1000) throw error;
    return this.cut(backoff(++this.#failures));
  }

  cut(milliseconds: number): number {
    return Math.min(milliseconds, Math.max(0, this.left() * 1000));
  }

  check(): void {
    if (this.left() <= 0) throw this.over();
  }

  over(): WaitTimeout {
    return new WaitTimeout(`task ${this.task} is not finished after ${this.timeout} seconds`);
  }
}

class Timer {
  #timer: ReturnType<typeof setTimeout>;

  constructor(readonly seconds: number, readonly act: () => void) {
    this.#timer = setTimeout(act, seconds * 1000);
  }

  restart(): void {
    this.stop();
    this.#timer = setTimeout(this.act, this.seconds * 1000);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** Worth another try of the same question: a reading one, so nothing happens twice. */
function isAway(error: unknown): boolean {
  if (error instanceof Problem) return [502, 503, 504].includes(error.status);
  if (error instanceof GatewayUnavailable || error instanceof OutcomeUnknown) return true;
  const name = (error as { name?: string } | undefined)?.name;
  return error instanceof TypeError || name === "TimeoutError" || name === "AbortError" || (error as Error)?.message === "the stream is silent";
}

function outcome(body: Result | Group): unknown {
  const isDone = "task_id" in body ? body.successful : body.status === "SUCCESS";
  if (isDone) return body.result;
  throw body.status === "REVOKED" ? new TaskRevoked(body) : new TaskFailed(body);
}

function handle(answer: Accepted): Handle {
  return { id: answer.task_id ?? answer.group_id ?? "", answer };
}

function idOf(task: Handle | string): string {
  return typeof task === "string" ? task : task.id;
}

function at(task: Handle | string): string {
  return encodeURIComponent(idOf(task));
}
