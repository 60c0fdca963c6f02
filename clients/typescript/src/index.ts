/**
 * The client of taskgate, the HTTP front door of a Celery fleet. No dependencies: `fetch` and streams, in Node 20 and in browsers.
 */
export { Client, type ClientOptions, type SubmitOptions, type WaitOptions, type StreamOptions } from "./client.js";
export {
  GatewayUnavailable, IncompatibleGateway, OutcomeUnknown, Problem, TaskFailed, TaskRevoked, WaitTimeout,
} from "./errors.js";
export { EventParser, type TaskEvent } from "./events.js";
export type {
  Accepted, Canvas, Dag, Group, Handle, Result, Revoked, Signature, Task, TaskOptions, TaskSignature,
} from "./types.js";
export type { components, operations, paths } from "./schema.js";
