// What can be done with one task: revoke with a verdict, retry, restart, and the call as text.

import { html, useState } from '../view.js';
import { address, may, post, segment } from '../api.js';
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

/** The call as JSON, to be changed and submitted as a new task. */
function Edit({ task, onClose, onNew }) {
  const [text, setText] = useState(JSON.stringify(signature(task), null, 2));
  const [refused, setRefused] = useState(null);
  const send = async () => {
    try {
      const next = await post('/v1/tasks', JSON.parse(text));
      onNew(next.task_id);
      return undefined;
    } catch (error) {
      setRefused(error);
      return 'stay';
    }
  };
  return html`<${Dialog} title="Edit and submit again" onClose=${onClose} action=${send} actionText="Submit" focus="field">
    <p>The old task stays as it is. What stands here is submitted as a new one.</p>
    <label class="field"><span>The call as JSON</span><textarea rows="12" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    ${refused && html`<div class="notice bad" role="status">${refused.message}${(refused.places || []).map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}</div>`}
  <//>`;
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
    ${!ended && may('control') && html`<button type="button" class="danger" id="revoke" onClick=${() => setAsks('revoke')}>Revoke…</button>`}
    ${ended && may('control') && html`<button type="button" class="main" id="retry" onClick=${() => (task.phase === 'succeeded' ? setAsks('retry') : retry(false))}>Retry</button>`}
    ${!ended && may('control') && html`<button type="button" class="danger" id="restart" onClick=${() => setAsks('restart')}>Restart…</button>`}
    ${task.args !== null && may('submit') && html`<button type="button" id="edit" onClick=${() => setAsks('edit')}>Edit and retry…</button>`}
    ${asks === 'edit' && html`<${Edit} task=${task} onClose=${() => setAsks(false)} onNew=${onNew} />`}
    <button type="button" onClick=${() => copy(asCurl(task), 'curl')}>Copy as curl</button>
    <button type="button" onClick=${() => copy(asPython(task), 'Python')}>Copy as Python</button>
    ${asks === 'restart' && html`<${Dialog} title="Restart this task?" onClose=${() => setAsks(false)} action=${() => retry(true)} actionText="Revoke and submit again" danger>
      <p>This task is revoked: if it runs, its worker is told to stop it (SIGTERM), and its result is lost. Then the same message is submitted again as a new task.</p>
    <//>`}
    ${asks === 'retry' && html`<${Dialog} title="Run it a second time?" onClose=${() => setAsks(false)} action=${() => retry(false)} actionText="Run it again">
      <p>This task succeeded. The same message is submitted again as a new task, and whatever it does happens once more.</p>
    <//>`}
    ${asks === 'revoke' && html`<${Dialog} title="Revoke this task?" onClose=${() => setAsks(false)} action=${revoke} actionText="Revoke" danger>
      <p>If no worker has it, it will never run. If one has it, the worker is told.</p>
      <label class="row"><input type="checkbox" checked=${terminate} onChange=${(event) => setTerminate(event.target.checked)} /> Stop it even if it runs (SIGTERM)</label>
    <//>`}
  </div>`;
}
