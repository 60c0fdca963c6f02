/** The client for the server's code. The token stays on the server, because the browser talks to our own routes. */
import { Client } from "taskgate";

const { TASKGATE_URL, TASKGATE_TOKEN } = process.env;

export const gate = new Client({
  url: TASKGATE_URL ?? "http://127.0.0.1:8000",
  ...(TASKGATE_TOKEN ? { token: TASKGATE_TOKEN } : {}),
});
