/** The gateway as the server's code sees it. The token stays here: the browser talks to our own routes. */
import { Client } from "taskgate";

const { TASKGATE_URL, TASKGATE_TOKEN } = process.env;

export const gate = new Client({
  url: TASKGATE_URL ?? "http://127.0.0.1:8000",
  ...(TASKGATE_TOKEN ? { token: TASKGATE_TOKEN } : {}),
});
