/** What can go wrong. A refusal is a `Problem`; a task that failed is a `TaskFailed`: the gateway did its work, the task did not. */
import type { Group, Place, ProblemDocument, Result } from "./types.js";

/** A refusal (RFC 9457). `slug` is the last part of `type`, `errors` has the places of the request. */
export class Problem extends Error {
  override name = "Problem";
  readonly slug: string;
  readonly status: number;
  readonly detail: string;
  readonly errors: Place[];
  /** Seconds. */
  readonly retryAfter: number | undefined;

  constructor(readonly document: ProblemDocument, retryAfter?: number) {
    const places = (document.errors ?? []).map((place) => `${place.pointer || "the body"}: ${place.detail}`).join("; ");
    const slug = document.type.split("/").pop() ?? document.type;
    super(`${document.status} ${slug}: ${document.detail}${places && !document.detail.includes(places) ? ` (${places})` : ""}`);
    this.slug = slug;
    this.status = document.status;
    this.detail = document.detail;
    this.errors = document.errors ?? [];
    this.retryAfter = retryAfter;
  }
}

/** Nobody answers there, or the gateway cannot do it now. Nothing was accepted. */
export class GatewayUnavailable extends Error {
  override name = "GatewayUnavailable";
}

/** The answer was lost, so the task may have been accepted. Sending it again with the same id is harmless. */
export class OutcomeUnknown extends Error {
  override name = "OutcomeUnknown";
}

/** Something else than a taskgate of this release is there. */
export class IncompatibleGateway extends Error {
  override name = "IncompatibleGateway";
}

/** The task was not finished in time. It goes on. */
export class WaitTimeout extends Error {
  override name = "WaitTimeout";
}

/** The task ended without success. */
export class TaskFailed extends Error {
  override name = "TaskFailed";
  readonly type: string | undefined;
  readonly traceback: string | undefined;

  constructor(readonly result: Result | Group) {
    const failure = failureOf(result);
    super(`task ${failure.id} ended with ${failure.type ? `${failure.type}: ${failure.message}` : result.status}`);
    this.type = failure.type;
    this.traceback = "traceback" in result ? (result.traceback ?? undefined) : undefined;
  }
}

/** The task was revoked, expired before it started, or was skipped because a task before it failed. */
export class TaskRevoked extends TaskFailed {
  override name = "TaskRevoked";
}

/** Of a group the first member that failed stands for all. */
function failureOf(result: Result | Group): { id: string; type?: string; message?: string } {
  if ("task_id" in result) {
    return { id: result.task_id, ...(result.error ?? {}) };
  }
  const failed = result.children.find((member) => member.error);
  return failed ? { id: failed.task_id, ...failed.error } : { id: result.group_id };
}
