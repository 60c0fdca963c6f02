// Queues: what waits, who serves it; pause, resume, purge; what is inside.

import { html, useState } from '../view.js';
import { may, post, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { count, seconds } from '../words.js';
import { say } from '../languages/speech.js';
import { to } from '../place.js';
import { Json, Name, TaskLink, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { QueueHistory } from '../parts/standings.js';
import { attempt } from '../parts/toasts.js';

function Messages({ queue: name }) {
  const [cursor, setCursor] = useState(undefined);
  const { data, error } = useLoaded(`/v1/queues/${segment(name)}/messages`, { limit: 50, cursor }, { same: name });
  return html`<section class="card"><h2>In <${Name} text=${name} /></h2>
    <${Trouble} error=${error} what="contents of queues" />
    ${data && data.messages.length === 0 && html`<${Empty} title="Nothing waits in the broker">What workers have, and what is held back, is not in the queue.<//>`}
    ${data && data.messages.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Messages"><table class="folds">
      <thead><tr><th class="number">Place</th><th>Id</th><th>Task</th><th class="number">Priority</th><th class="number">Bytes</th><th>Arguments</th></tr></thead>
      <tbody>${data.messages.map((message) => html`<tr key=${message.position}><td class="number">${message.position}</td>
        <td><${TaskLink} id=${message.task_id} /></td><td class="wrap" translate=${false}>${message.task || message.error}</td><td class="number">${message.priority}</td><td class="number">${count(message.bytes)}</td>
        <td><details><summary class="small">show</summary><${Json} value=${{ args: message.args, kwargs: message.kwargs }} name="arguments" /></details></td></tr>`)}</tbody>
    </table></div>`}
    <div class="row">${cursor && html`<button type="button" onClick=${() => setCursor(undefined)}>First page</button>`}
      ${data?.next && html`<button type="button" onClick=${() => setCursor(data.next)}>Next page</button>`}</div>
  </section>`;
}

function Row({ queue, onChange, onPurge }) {
  const path = `/v1/queues/${segment(queue.name)}`;
  const turn = async (word) => {
    await attempt(() => post(`${path}/${word}`), say(word === 'pause' ? '{name} is paused' : '{name} goes on', { name: queue.name }));
    onChange();
  };
  return html`<tr>
    <td><a translate=${false} href=${to(`queues/${encodeURIComponent(queue.name)}`)}>${queue.name}</a> ${queue.paused && html`<span class="phase warn">paused</span>`}
      ${!queue.consumers && queue.waiting > 0 && html` <span class="phase bad">nobody serves it</span>`}</td>
    <td class="number" data-name="waiting">${count(queue.waiting)}</td><td class="number" data-name="held">${count(queue.held)}</td><td class="number" data-name="with workers">${count(queue.reserved)}</td>
    <td class="number" data-name="oldest">${seconds(queue.oldest_seconds)}</td><td class="number" data-name="workers">${count(queue.consumers)}</td>
    <td class="actions"><div class="row">
      ${may('control') && html`${queue.paused ? html`<button type="button" aria-label="Resume ${queue.name}" onClick=${() => turn('resume')}>Resume</button>`
        : html`<button type="button" aria-label="Pause ${queue.name}" onClick=${() => turn('pause')}>Pause</button>`}
      <button type="button" class="danger" aria-label="Purge ${queue.name}" onClick=${() => onPurge(queue)}>Purge…</button>`}
      <a class="button" href=${to('tasks', { queue: queue.name })} aria-label="Tasks of ${queue.name}">Tasks</a></div></td></tr>`;
}

export function Queues({ place }) {
  const { data, error, reload } = useLoaded('/v1/queues', undefined, { everyMs: 3000 });
  const [purged, setPurged] = useState(null);
  const purge = async () => {
    await attempt(() => post(`/v1/queues/${segment(purged.name)}/purge`), (done) => say('{count} messages taken out of {name}', { count: count(done.purged), name: purged.name }));
    reload();
  };
  return html`<div class="stack">
    <div class="head"><h1>Queues</h1></div>
    <${Trouble} error=${error} what="list of queues" />
    ${data && html`<div class="scroll" tabindex="0" role="region" aria-label="Queues"><table class="folds">
      <thead><tr><th>Queue</th><th class="number">Waiting</th><th class="number">Held</th><th class="number">With workers</th><th class="number">Oldest</th><th class="number">Workers</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.queues.map((queue) => html`<${Row} key=${queue.name} queue=${queue} onChange=${reload} onPurge=${setPurged} />`)}</tbody>
    </table></div>`}
    ${place.rest[0] && html`<${QueueHistory} queue=${place.rest[0]} /><${Messages} queue=${place.rest[0]} />`}
    ${purged && html`<${Dialog} title=${say('Purge {name}?', { name: purged.name })} danger actionText="Purge ${count(purged.waiting)}" action=${purge} onClose=${() => setPurged(null)}>
      <p>${count(purged.waiting)} messages are taken out, and their tasks end as revoked. What is held stays.</p><//>`}
  </div>`;
}
