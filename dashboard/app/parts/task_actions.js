// What can be done with one task: revoke with a verdict, retry, restart, and the call as text.

import { html, useState } from '../view.js';
import { address, post, segment } from '../api.js';
import { FINAL } from '../words.js';
import { Dialog } from './dialog.js';
import { attempt, toast } from './toasts.js';

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function signature(task) {
  const body = { task: task.task, args: task.args || [], kwargs: task.kwargs || {}, queue: task.queue, priority: task.priority };
  if (Object.keys(task.labels || {}).length) body.labels = task.labels;
  return body;
}

export function asCurl(task) {
  return `curl -X POST ${quoted(String(address('/v1/tasks')))} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(signature(task)))}`;
}

/** A value as Python writes it. */
export function python(value) {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object') return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${python(one)}`).join(', ')}}`;
  return JSON.stringify(value);
}

export function asPython(task) {
  const options = [`args=${python(task.args || [])}`, `kwargs=${python(task.kwargs || {})}`, `queue=${python(task.queue)}`];
  if (task.priority) options.push(`priority=${task.priority}`);
  return `app.send_task(${python(task.task)}, ${options.join(', ')})`;
}

export async function copy(text, name) {
  try {
    await navigator.clipboard.writeText(text);
    toast(name === 'id' ? 'The id is copied' : `Copied as ${name}`);
  } catch {
    toast(text, 'warn');
  }
}

export function TaskActions({ task, onDone, onNew }) {
  const [asks, setAsks] = useState(false);
  const [terminate, setTerminate] = useState(false);
  const path = `/v1/tasks/${segment(task.task_id)}`;
  const revoke = async () => {
    await attempt(() => post(`${path}/revoke`, { terminate }), ({ verdict, detail }) => `${verdict}: ${detail}`);
    onDone();
  };
  const retry = async (restart) => {
    const next = await attempt(() => post(`${path}/retry`, { restart }), restart ? 'Restarted' : 'Submitted again');
    if (next?.task_id) onNew(next.task_id);
  };
  const ended = FINAL.has(task.phase);
  return html`<div class="row" role="group" aria-label="Actions">
    ${!ended && html`<button type="button" class="danger" id="revoke" onClick=${() => setAsks(true)}>Revoke…</button>`}
    ${ended && html`<button type="button" class="main" id="retry" onClick=${() => retry(false)}>Retry</button>`}
    ${!ended && html`<button type="button" onClick=${() => retry(true)}>Restart</button>`}
    <button type="button" onClick=${() => copy(asCurl(task), 'curl')}>Copy as curl</button>
    <button type="button" onClick=${() => copy(asPython(task), 'Python')}>Copy as Python</button>
    ${asks && html`<${Dialog} title="Revoke this task?" onClose=${() => setAsks(false)} action=${revoke} actionText="Revoke" danger>
      <p>If no worker has it, it will never run. If one has it, the worker is told.</p>
      <label class="row"><input type="checkbox" checked=${terminate} onChange=${(event) => setTerminate(event.target.checked)} /> Stop it even if it runs (SIGTERM)</label>
    <//>`}
  </div>`;
}
