/**
 * Requests, repeated where that is harmless. The client makes a task's id, so a request whose answer was lost is sent again: the gateway
 * refuses the second with `id-taken`, which then means "accepted".
 */
import { GatewayUnavailable, IncompatibleGateway, OutcomeUnknown, Problem } from "./errors.js";

export const VERSION = "0.1.0";
const ATTEMPTS = 3;

export interface Request {
  method: "GET" | "POST";
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Seconds that the gateway was asked to wait. */
  patience?: number;
}

export interface Transport {
  url: string;
  token: string | undefined;
  /** Seconds for one answer. */
  timeout: number;
  fetch: typeof fetch;
}

/** The answer as JSON. */
export async function send<T>(transport: Transport, request: Request): Promise<T> {
  const text = request.body === undefined ? undefined : encode(request.body);
  let lost: unknown;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await pause(backoff(attempt), request.signal);
    try {
      const signal = within(transport.timeout + (request.patience ?? 0), request.signal);
      const response = await open(transport, { ...request, signal }, text);
      return (await response.json()) as T;
    } catch (error) {
      const task = (request.body as { task_id?: string } | undefined)?.task_id;
      if (lost !== undefined && task && error instanceof Problem && error.slug === "id-taken") {
        return { task_id: task, status: "PENDING", phase: "accepted" } as T;
      }
      if ([Problem, IncompatibleGateway, GatewayUnavailable].some((kind) => error instanceof kind)) throw error;
      request.signal?.throwIfAborted();
      if (lost === undefined && wasNeverSent(error)) {
        throw new GatewayUnavailable(`nobody answers at ${transport.url}`, { cause: error });
      }
      lost = error;
    }
  }
  throw new OutcomeUnknown(`${transport.url} did not answer ${request.method} ${request.path}`, { cause: lost });
}

/** The answer with its body unread. */
export async function open(transport: Transport, request: Request, body?: string): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json", ...request.headers };
  if (transport.token) headers["authorization"] = `Bearer ${transport.token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await transport.fetch(transport.url + request.path, {
    method: request.method,
    headers,
    ...(body === undefined ? {} : { body }),
    ...(request.signal ? { signal: request.signal } : {}),
  });
  checkVersion(response);
  if (response.status >= 400) throw await refusal(response);
  return response;
}

/** Refuses what JSON would silently change. */
export function encode(value: unknown): string {
  return JSON.stringify(value, (name, member: unknown) => {
    if (typeof member === "number" && !Number.isFinite(member)) throw new TypeError(`${name}: JSON has no ${member}; send null or text`);
    if (typeof member === "bigint") throw new TypeError(`${name}: JSON cannot carry a BigInt; send text`);
    return member;
  });
}

async function refusal(response: Response): Promise<Error> {
  const after = Number(response.headers.get("retry-after") ?? NaN);
  if (response.headers.get("content-type")?.includes("json")) {
    const document = await response.json().catch(() => undefined);
    if (document?.type) return new Problem(document, Number.isNaN(after) ? undefined : after);
  }
  if ([502, 503, 504].includes(response.status)) return new GatewayUnavailable(`${response.url} answered ${response.status}`);
  return new IncompatibleGateway(`${response.url} answered ${response.status} without a problem document: is a taskgate there?`);
}

function checkVersion(response: Response): void {
  const theirs = response.headers.get("taskgate-version");
  if (theirs && !fits(VERSION, theirs)) {
    throw new IncompatibleGateway(`the gateway is taskgate ${theirs}, this client is ${VERSION}: install taskgate@${theirs}`);
  }
}

/** The same major version, and the client's minor release, a newer one, or the one before, which replicas may be in an upgrade. */
export function fits(client: string, gateway: string): boolean {
  const [mine, theirs] = [client, gateway].map((text) => text.split("-")[0]!.split(".").map(Number)) as [number[], number[]];
  if ([mine[0], mine[1], theirs[0], theirs[1]].some((part) => part === undefined || Number.isNaN(part))) return true;
  return mine[0] === theirs[0] && theirs[1]! >= mine[1]! - 1;
}

/** Node says so by a code; browsers tell nothing apart, and there the request counts as sent. */
function wasNeverSent(error: unknown): boolean {
  const cause = (error as { cause?: { code?: string } } | undefined)?.cause;
  return ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"].includes(cause?.code ?? "");
}

/** Milliseconds: doubled each time, bounded, and never the same for all clients. */
export function backoff(attempt: number): number {
  return Math.min(5000, 100 * 2 ** attempt) * (0.5 + Math.random() / 2);
}

export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, Math.max(0, milliseconds));
    function stop() {
      clearTimeout(timer);
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Ends after so many seconds, or with the caller's signal. */
function within(seconds: number, signal: AbortSignal | undefined): AbortSignal {
  const timeout = AbortSignal.timeout(seconds * 1000);
  return signal ? AbortSignal.any([timeout, signal]) : timeout;
}

/** A UUIDv7: ids that are made later sort later. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let now = Date.now();
  for (let place = 5; place >= 0; place--) {
    bytes[place] = now % 256;
    now = Math.floor(now / 256);
  }
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
