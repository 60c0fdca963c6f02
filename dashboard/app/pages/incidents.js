// What is wrong with the fleet now, who looks after it, and what was wrong.

import { html, useState } from '../view.js';
import { may, post, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { at, between, seconds } from '../words.js';
import { say } from '../languages/speech.js';
import { go, to } from '../place.js';
import { Empty } from '../parts/icons.js';
import { Segments } from '../parts/segments.js';
import { Name, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { attempt } from '../parts/toasts.js';

/** Every kind that the gateway has (src/tell/incident_kind.rs; a test compares). */
export const NAMES = { silent_worker: 'takes nothing', no_consumer: 'nobody serves it', over_budget: 'over its budget', outbox_stuck: 'outbox stuck',
  canvas_stuck: 'step not sent', wrong_key: 'key is no list', other_options: 'other transport options', mute_worker: 'sends no events',
  deaf_worker: 'answers nothing', no_queue: 'no such queue', other_signature: 'signatures differ', ledger_down: 'ledger takes no writes',
  redis_down: 'Redis takes no writes', redis_evicts: 'Redis drops messages', repeated_delivery: 'delivered again and again',
  'repair-suspended': 'repairs suspended', undecided: 'not decided', unreadable_row: 'unreadable row',
  no_progress: 'tells no progress', short_tasks: 'very short tasks', large_results: 'large results', large_worker: 'large worker' };
const OF_TASKS = new Set(['over_budget', 'no_progress', 'canvas_stuck', 'repeated_delivery', 'undecided']);
const OF_QUEUES = new Set(['no_consumer', 'wrong_key', 'no_queue']);
const SPANS = [[3600, '1 hour'], [28800, '8 hours'], [86400, '24 hours'], [604800, '7 days']];

function Subject({ kind, subject: name }) {
  if (OF_TASKS.has(kind)) return html`<${TaskLink} id=${name} />`;
  if (OF_QUEUES.has(kind)) return html`<a translate=${false} href=${to(`queues/${encodeURIComponent(name)}`)}>${name}</a>`;
  return html`<${Name} text=${name} />`;
}

const Kind = ({ kind }) => html`<span title=${kind}>${Object.hasOwn(NAMES, kind) ? NAMES[kind] : kind.replaceAll('_', ' ')}</span>`;

/** How long nobody outside is told. */
function Mute({ one, onClose, onChange }) {
  const [span, setSpan] = useState(SPANS[0][0]);
  const mute = async () => {
    await attempt(() => post(`/v1/incidents/${segment(one.id)}/mute`, { seconds: span }), (done) => say('Muted until {time}', { time: at(done.muted_until) }));
    onChange();
  };
  return html`<${Dialog} title="Mute this incident?" action=${mute} actionText="Mute" focus="field" onClose=${onClose}>
    <p><${Kind} kind=${one.kind} />: <${Name} text=${one.subject} /></p>
    <p>Nobody outside is told that it is over, or that it began again. It stays on this list.</p>
    <label class="field"><span>For how long</span><select value=${span} onChange=${(event) => setSpan(Number(event.target.value))}>
      ${SPANS.map(([seconds_, name]) => html`<option key=${seconds_} value=${seconds_} selected=${seconds_ === span}>${name}</option>`)}</select></label>
  <//>`;
}

function Actions({ one, onChange, onMute }) {
  const { id, subject } = one;
  const path = `/v1/incidents/${segment(id)}`;
  const acknowledge = async () => {
    await attempt(() => post(`${path}/ack`), 'You look after it');
    onChange();
  };
  const unmute = async () => {
    await attempt(() => remove(`${path}/mute`), 'The outside is told again');
    onChange();
  };
  return html`<div class="row">
    ${!one.acknowledged_by && html`<button type="button" aria-label="Acknowledge ${subject}" onClick=${acknowledge}>Acknowledge</button>`}
    ${one.muted_until ? html`<button type="button" aria-label="Unmute ${subject}" onClick=${unmute}>Unmute</button>`
      : html`<button type="button" aria-label="Mute… ${subject}" onClick=${() => onMute(one)}>Mute…</button>`}</div>`;
}

function Row({ one, onChange, onMute }) {
  const lasted = seconds(between(one.since, one.ended_at || new Date().toISOString()));
  return html`<tr><td class="nowrap"><${Time} value=${one.since} /></td><td class="nowrap"><${Kind} kind=${one.kind} /></td>
    <td class="wrap"><${Subject} ...${one} /></td>
    <td class="wrap"><span translate=${false}>${one.detail}</span>
      ${one.acknowledged_by && html` <span class="phase good" title=${at(one.acknowledged_at)}>looked after by <${Name} text=${one.acknowledged_by} /></span>`}
      ${one.muted_until && html` <span class="phase warn">muted until <${Time} value=${one.muted_until} /></span>`}</td>
    <td class="number" data-name="lasted">${lasted}</td>
    <td class="actions">${!one.ended_at && may('control') && html`<${Actions} one=${one} onChange=${onChange} onMute=${onMute} />`}</td></tr>`;
}

function Table({ list, onChange, onMute }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Incidents"><table class="folds">
    <thead><tr><th>Since</th><th>Kind</th><th>Subject</th><th>What</th><th class="number">Lasted</th><th><span class="hidden">Actions</span></th></tr></thead>
    <tbody>${list.map((one) => html`<${Row} key=${one.id + one.since} one=${one} onChange=${onChange} onMute=${onMute} />`)}</tbody>
  </table></div>`;
}

function Past() {
  const [cursors, setCursors] = useState([undefined]);
  const { data, error } = useLoaded('/v1/incidents/history', { limit: 100, cursor: cursors.at(-1) }, { everyMs: cursors.length === 1 ? 10000 : 0, same: 'rows' });
  return html`<div class="stack"><${Trouble} error=${error} what="history of incidents" />
    ${data && data.incidents.length === 0 && html`<${Empty} kind="good" title="Nothing was wrong in the last 90 days">An incident that is over is kept here, with who looked after it.<//>`}
    ${data && data.incidents.length > 0 && html`<${Table} list=${data.incidents} />`}
    <div class="row">${cursors.length > 1 && html`<button type="button" onClick=${() => setCursors(cursors.slice(0, -1))}>Newer ones</button>`}
      ${data?.next && html`<button type="button" onClick=${() => setCursors([...cursors, data.next])}>Older ones</button>`}</div></div>`;
}

function Now() {
  const { data, error, reload } = useLoaded('/v1/incidents', undefined, { everyMs: 5000 });
  const [muted, setMuted] = useState(null);
  const list = data?.incidents || [];
  return html`<div class="stack"><${Trouble} error=${error} what="list of incidents" />
    ${data && list.length === 0 && html`<${Empty} kind="good" title="Nothing is wrong now">Silent workers, queues that nobody serves, tasks over their budget and a stuck outbox would be listed here.<//>`}
    ${list.length > 0 && html`<${Table} list=${list} onChange=${reload} onMute=${setMuted} />`}
    ${muted && html`<${Mute} one=${muted} onChange=${reload} onClose=${() => setMuted(null)} />`}</div>`;
}

export function Incidents({ place }) {
  const past = place.query.get('show') === 'past';
  return html`<div class="stack">
    <div class="head"><h1>Incidents</h1><${Segments} label="Which" choices=${[['now', 'Now'], ['past', 'History']]} chosen=${past ? 'past' : 'now'}
      choose=${(id) => go(to('incidents', { show: id === 'past' ? 'past' : undefined }))} /></div>
    ${past ? html`<${Past} />` : html`<${Now} />`}
  </div>`;
}
