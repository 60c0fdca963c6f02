/** Short names for what the contract says; `schema.ts` is generated from it. */
import type { components } from "./schema.js";

type Schemas = components["schemas"];

export type Accepted = Schemas["Accepted"];
export type Result = Schemas["Result"];
export type Group = Schemas["Group"];
export type Task = Schemas["Task"];
export type Revoked = Schemas["Revoked"];
export type Batch = Schemas["Batch"];
export type ProblemDocument = Schemas["Problem"];
export type Place = Schemas["Place"];

/** What a call may say besides its name and arguments. */
export interface TaskOptions {
  queue?: string;
  /** 0 is served first on Redis; 9 on RabbitMQ. */
  priority?: number;
  /** Seconds until it may run. */
  countdown?: number;
  eta?: Date | string;
  /** Seconds, or a time. */
  expires?: number | Date | string;
  ignore_result?: boolean;
  soft_time_limit?: number;
  time_limit?: number;
  immutable?: boolean;
  task_id?: string;
  headers?: Record<string, unknown>;
  labels?: Record<string, string>;
  retry?: Record<string, unknown>;
  link?: Signature[];
  link_error?: Signature[];
  /** At the top level only. */
  unique?: { key: string; while?: "active" | number };
  limits?: { key: string; max: number }[];
  webhooks?: { url: string; on?: string[] }[];
}

export interface TaskSignature extends TaskOptions {
  task: string;
  args?: unknown[];
  kwargs?: Record<string, unknown>;
}

export type Canvas = { chain: Signature[] } | { group: Signature[] } | { chord: { header: Signature[]; body: Signature } };

/** Tasks with names, each run when those that it waits for have succeeded. The whole of a submission. */
export type Dag = { dag: { nodes: Record<string, Signature & { after?: string[] }> }; labels?: Record<string, string> };

/** A call, or a composition of calls. */
export type Signature = TaskSignature | Canvas;

/** A submitted task or canvas. For a group `id` is the group's id, and `wait` gives the list of its results. */
export interface Handle {
  id: string;
  answer: Accepted;
}
