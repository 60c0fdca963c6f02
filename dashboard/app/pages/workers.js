// Workers: who is there, how loaded, what each one runs; and Celery's remote control.

import { html, useState } from '../view.js';
import { may, post } from '../api.js';
import { useLoaded } from '../loading.js';
import { between, bytes, count, seconds } from '../words.js';
import { say } from '../languages/speech.js';
import { to } from '../place.js';
import { Json, Name, Notice, TaskLink, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { WorkerHistory } from '../parts/standings.js';
import { attempt } from '../parts/toasts.js';

const INSPECT = ['active', 'reserved', 'scheduled', 'registered', 'active_queues', 'stats', 'revoked', 'conf', 'ping'];
const COMMANDS = {
  pool_grow: { n: 'number' }, pool_shrink: { n: 'number' }, autoscale: { max: 'number', min: 'number' },
  add_consumer: { queue: 'text' }, cancel_consumer: { queue: 'text' },
  rate_limit: { task_name: 'text', rate_limit: 'text' }, time_limit: { task_name: 'text', soft: 'number', hard: 'number' },
  shutdown: {},
};

function Inspect({ hostname }) {
  const [method, setMethod] = useState('active');
  const { data, error, reload } = useLoaded(`/v1/inspect/${method}`, { destination: hostname });
  const reply = data?.replies?.[hostname];
  return html`<div class="stack">
    <div class="row"><label class="row">Ask for <select value=${method} onChange=${(event) => setMethod(event.target.value)}>
      ${INSPECT.map((name) => html`<option key=${name} value=${name} selected=${name === method}>${name}</option>`)}</select></label><button type="button" onClick=${reload}>Again</button></div>
    <${Trouble} error=${error} what="inspection of workers" />
    ${data && reply === undefined && html`<${Notice} kind="warn">The worker did not answer in time.<//>`}
    ${method === 'active' && Array.isArray(reply) && html`<ul class="plain">${reply.map((task) => html`<li key=${task.id}><${TaskLink} id=${task.id} /> <${Name} text=${task.name || task.type} /></li>`)}
      ${reply.length === 0 && html`<li class="quiet">It runs nothing.</li>`}</ul>`}
    ${reply !== undefined && !(method === 'active' && reply.length === 0) && html`<${Json} value=${reply} name=${method} />`}
  </div>`;
}

function Control({ hostname, onDone }) {
  const [command, setCommand] = useState('pool_grow');
  const [asks, setAsks] = useState(null);
  const send = async (args) => {
    await attempt(() => post(`/v1/control/${command}`, { destination: [hostname], arguments: args }),
      (done) => `${command}: ${JSON.stringify(done.replies?.[hostname] ?? 'sent')}`);
    onDone();
  };
  const submit = (event) => {
    event.preventDefault();
    const given = {};
    for (const [name, text] of new FormData(event.target)) {
      if (text !== '') given[name] = COMMANDS[command][name] === 'number' ? Number(text) : text;
    }
    if (command === 'shutdown') setAsks(given);
    else send(given);
  };
  return html`<form class="filters" onSubmit=${submit}>
    <label class="field"><span>Command</span><select value=${command} onChange=${(event) => setCommand(event.target.value)}>
      ${Object.keys(COMMANDS).map((name) => html`<option key=${name} value=${name} selected=${name === command}>${name}</option>`)}</select></label>
    ${Object.entries(COMMANDS[command]).map(([name, type]) => html`<label class="field" key=${command + name}><span translate=${false}>${name}</span><input name=${name} type=${type} min="0" /></label>`)}
    <button class=${command === 'shutdown' ? 'danger' : ''}>Send</button>
    ${asks && html`<${Dialog} title=${say('Shut {name} down?', { name: hostname })} danger actionText="Shut down" onClose=${() => setAsks(null)} action=${() => send(asks)}>
      <p>It finishes what it runs and ends. Something else has to start it again.</p><//>`}
  </form>`;
}

/** What it runs now, as the ledger knows it: no question to the worker, so it may be asked often. */
function Running({ hostname }) {
  const { data } = useLoaded('/v1/tasks', { worker: hostname, phase: 'running', limit: 8 }, { everyMs: 3000 });
  const tasks = data?.tasks || [];
  return tasks.length > 0 && html`<ul class="plain" aria-label="Running now">${tasks.map((task) => html`<li key=${task.task_id}>
    <${TaskLink} id=${task.task_id} /> <${Name} text=${task.task} /> <span class="quiet small">${seconds(between(task.started_at, new Date()))}</span></li>`)}</ul>`;
}

function Worker({ worker, onDone }) {
  const stale = worker.status !== 'online';
  return html`<section class="card stack" aria-label=${worker.hostname}>
    <div class="head"><h2 class="wrap" translate=${false}>${worker.hostname}</h2><span class="phase ${stale ? 'bad' : 'good'}">${worker.status}</span></div>
    <dl class="facts">
      <dt>Heartbeat</dt><dd>${seconds(worker.heartbeat_age)} ago</dd>
      <dt>Running</dt><dd>${count(worker.active)} of ${count(worker.concurrency)} · <a href=${to('tasks', { worker: worker.hostname })}>all its tasks</a></dd>
      <dt>Processed</dt><dd>${count(worker.processed)}</dd>
      <dt>Pool</dt><dd>${worker.pool || '–'}${worker.prefetch ? say(', takes {count} in advance', { count: worker.prefetch }) : ''}</dd>
      <dt>Queues</dt><dd>${(worker.queues || []).map((name) => html`<a class="label" translate=${false} key=${name} href=${to('tasks', { queue: name })}>${name}</a> `)}</dd>
      <dt>Load</dt><dd>${worker.load ? worker.load.map((value) => value.toFixed(2)).join(' · ') : '–'}</dd>
      <dt>Memory</dt><dd>${bytes(worker.memory_bytes)}</dd>
      <dt>Software</dt><dd translate=${false}>${worker.software || '–'}</dd>
    </dl>
    ${worker.trouble && html`<${Notice} kind="warn">${worker.trouble}<//>`}
    ${!stale && worker.active > 0 && html`<${Running} hostname=${worker.hostname} />`}
    ${!stale && html`<${Details} name="Inspect"><${Inspect} hostname=${worker.hostname} /><//>
      ${may('control') && html`<${Details} name="Control"><${Control} hostname=${worker.hostname} onDone=${onDone} /><//>`}`}
    <${Details} name="Over time"><${WorkerHistory} hostname=${worker.hostname} /><//>
  </section>`;
}

/** Asks the worker only when it is opened. */
function Details({ name, children }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>${name}</summary>${open && children}</details>`;
}

export function Workers() {
  const { data, error, reload } = useLoaded('/v1/workers', undefined, { everyMs: 3000 });
  return html`<div class="stack">
    <div class="head"><h1>Workers</h1></div>
    <${Trouble} error=${error} what="list of workers" />
    ${data && data.workers.length === 0 && html`<${Empty} title="No worker was seen within the last day">Start one on the same broker: <code>celery -A yourapp worker</code> or <code>taskgate worker</code><//>`}
    ${data && html`<div class="columns many">${data.workers.map((worker) => html`<${Worker} key=${worker.hostname} worker=${worker} onDone=${reload} />`)}</div>`}
  </div>`;
}
