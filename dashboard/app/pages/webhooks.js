// Who is told what over webhooks, and how that went.

import { html, useState } from '../view.js';
import { patch, post, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { count } from '../words.js';
import { Json, Name, Notice, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { attempt } from '../parts/toasts.js';

const TONES = { delivered: 'good', failed: 'bad', pending: 'warn' };
/** These stand for what catalog entries and submissions ask for, and cannot be deleted. */
const BUILT_IN = new Set(['catalog', 'submissions']);

function Deliveries({ id }) {
  const path = `/v1/webhooks/${segment(id)}/deliveries`;
  const { data, error, reload } = useLoaded(path, { limit: 50 }, { everyMs: 5000 });
  const again = async (delivery) => {
    await attempt(() => post(`${path}/${segment(delivery)}/resend`), 'It is sent again');
    reload();
  };
  return html`<section class="card"><h2>Deliveries of ${id}</h2><${Trouble} error=${error} what="deliveries" />
    ${data && data.deliveries.length === 0 && html`<p class="quiet">Nothing was sent yet.</p>`}
    ${data && data.deliveries.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Deliveries"><table class="folds">
      <thead><tr><th>When</th><th>What</th><th>Task</th><th>State</th><th class="number">Tries</th><th>Error</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.deliveries.map((one) => html`<tr key=${one.id}><td class="nowrap"><${Time} value=${one.created_at} /></td><td>${one.type}</td><td><${TaskLink} id=${one.task_id} /></td>
        <td><span class="phase ${TONES[one.state] || ''}">${one.state}</span></td><td class="number" data-name="tries">${count(one.attempts)}</td><td class="wrap small" translate=${false}>${one.last_error || '–'}</td>
        <td class="actions">${one.state !== 'pending' && html`<button type="button" aria-label="Send ${one.id} again" onClick=${() => again(one.id)}>Send again</button>`}</td></tr>`)}</tbody></table></div>`}</section>`;
}

function New({ onClose }) {
  const [text, setText] = useState(JSON.stringify({ url: 'https://example.com/hook', on: ['failure'] }, null, 2));
  const [made, setMade] = useState(null);
  const [refused, setRefused] = useState(null);
  const create = async () => {
    try {
      setMade(await post('/v1/webhooks', JSON.parse(text)));
    } catch (error) {
      setRefused(error);
    }
    return 'stay';
  };
  if (made) return html`<${Dialog} title="Registered" onClose=${onClose}><p>This is the only time that its secret is shown:</p><${Json} value=${{ id: made.id, secret: made.secret }} name="secret" /><//>`;
  return html`<${Dialog} title="New webhook" onClose=${onClose} action=${create} actionText="Register" focus="field">
    <label class="field"><span>The webhook as JSON</span><textarea rows="8" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    ${refused && html`<${Notice} kind="bad" live>${refused.message}${(refused.places || []).map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}<//>`}
  <//>`;
}

function Row({ hook, open, onOpen, onChange, onRemove }) {
  const turn = async () => {
    await attempt(() => patch(`/v1/webhooks/${segment(hook.id)}`, { enabled: !hook.enabled }), hook.enabled ? 'Switched off' : 'Switched on');
    onChange();
  };
  const wants = [...(hook.on || []), ...(hook.tasks || [])];
  return html`<tr aria-current=${open ? 'true' : undefined}><td class="wrap"><button type="button" class="link" aria-expanded=${open} onClick=${onOpen}><${Name} text=${hook.id} /></button></td>
    <td class="wrap small">${hook.url || 'as each task asks'}</td><td class="wrap small">${[].concat(wants).join(', ') || '–'}</td>
    <td>${hook.enabled ? html`<span class="phase good">on</span>` : html`<span class="phase warn">off</span> <span class="small quiet">${hook.disabled_reason}</span>`}</td>
    <td class="actions">${!BUILT_IN.has(hook.id) && html`<div class="row"><button type="button" aria-label="${hook.enabled ? 'Switch off' : 'Switch on'} ${hook.id}" onClick=${turn}>${hook.enabled ? 'Switch off' : 'Switch on'}</button>
      <button type="button" class="danger" aria-label="Delete ${hook.id}" onClick=${onRemove}>Delete…</button></div>`}</td></tr>`;
}

export function Webhooks() {
  const { data, error, reload } = useLoaded('/v1/webhooks', { limit: 500 }, { everyMs: 10000 });
  const [open, setOpen] = useState(null);
  const [asks, setAsks] = useState(null);
  const list = data?.webhooks || [];
  const done = () => { setAsks(null); reload(); };
  return html`<div class="stack">
    <div class="head"><h1>Webhooks</h1><button type="button" class="main" onClick=${() => setAsks('new')}>New…</button></div>
    <${Trouble} error=${error} what="list of webhooks" />
    ${data && list.length === 0 && html`<${Empty} title="Nobody is told anything yet">A webhook is told of each change of a task that it asks for.<//>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Webhooks"><table class="folds">
      <thead><tr><th>Id</th><th>Where to</th><th>Of what</th><th>State</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${list.map((hook) => html`<${Row} key=${hook.id} hook=${hook} open=${open === hook.id} onOpen=${() => setOpen(open === hook.id ? null : hook.id)} onChange=${reload} onRemove=${() => setAsks(hook)} />`)}</tbody></table></div>`}
    ${open && html`<${Deliveries} key=${open} id=${open} />`}
    ${asks === 'new' && html`<${New} onClose=${done} />`}
    ${asks && asks !== 'new' && html`<${Dialog} title="Delete ${asks.id}?" danger actionText="Delete" onClose=${done} action=${() => attempt(() => remove(`/v1/webhooks/${segment(asks.id)}`), 'Deleted')}>
      <p>It is told nothing more, and its deliveries are forgotten, those that are still under way too.</p><//>`}
  </div>`;
}
