// Revoke or retry many tasks. All that fit the filters are one operation of the gateway, which goes on when this page is closed; those
// that are ticked are called one by one. Counts first, acts after a yes.

import { html, useEffect, useState } from '../view.js';
import { get, may, post, segment } from '../api.js';
import { FINAL, count, phaseWord } from '../words.js';
import { Dialog } from './dialog.js';
import { Bar, Notice } from './basics.js';
import { attempt, toast } from './toasts.js';

/** So many calls run at the same time. */
const AT_ONCE = 6;
const AGAIN_MS = 1000;
/** What a retry takes unless somebody ticks more. */
const USUAL = new Set(['failed', 'lost']);

const KINDS = {
  retry: {
    title: 'Retry', doing: 'Retrying', fits: (task) => FINAL.has(task.phase),
    act: (id) => post(`/v1/tasks/${segment(id)}/retry`, {}),
    says: 'Each message is submitted again as a new task. The old tasks stay in the history. What was sent again before is left alone.',
  },
  revoke: {
    title: 'Revoke', doing: 'Revoking', danger: true, fits: (task) => !FINAL.has(task.phase),
    act: (id) => post(`/v1/tasks/${segment(id)}/revoke`, {}),
    says: 'What no worker has yet will never run. Workers that have one are told; what runs goes on, unless it is stopped.',
  },
};

/** Calls for each task, a few at a time; returns how many were refused. */
export async function forEach(ids, action, onProgress) {
  let next = 0;
  let done = 0;
  let refused = 0;
  const lane = async () => {
    while (next < ids.length) {
      const id = ids[next];
      next += 1;
      try {
        await action(id);
      } catch {
        refused += 1;
      }
      done += 1;
      onProgress(done / ids.length);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return refused;
}

/** Ticked tasks, as they are now. */
function Picked({ kind, ids, onClose, onDone }) {
  const [fit, setFit] = useState(null);
  const [part, setPart] = useState(null);
  const { title, danger, says, fits, act } = KINDS[kind];
  useEffect(() => {
    Promise.all(ids.map((id) => get(`/v1/tasks/${segment(id)}`)))
      .then((tasks) => setFit(tasks.filter(fits).map((task) => task.task_id)), (error) => { toast(error.message, 'bad'); onClose(); });
  }, []);
  if (!fit) return null;
  const left = ids.length - fit.length;
  const run = async () => {
    setPart(0);
    const refused = await forEach(fit, act, setPart);
    toast(`${title}: ${count(fit.length - refused)} done${refused ? `, ${count(refused)} refused` : ''}`, refused ? 'warn' : 'good');
    onDone();
  };
  return html`<${Dialog} title="${title} ${count(fit.length)} tasks?" onClose=${onClose} action=${run}
      actionText="${title} ${count(fit.length)}" danger=${danger} nothing=${fit.length === 0}>
    <p>${says}</p>
    ${left > 0 && html`<p>${count(left)} others are left alone: ${kind === 'retry' ? 'they have not ended' : 'they have ended already'}.</p>`}
    ${part !== null && html`<${Bar} part=${part} />`}
  <//>`;
}

/** How far an operation is, with what can still be done about it. */
export function Progress({ bulk, onChange }) {
  const acted = bulk.done + bulk.skipped + bulk.failed;
  const turn = async (word) => {
    const next = await attempt(() => post(`/v1/bulk/${bulk.id}/${word}`), '');
    if (next) onChange(next);
  };
  const ended = bulk.state === 'done' || bulk.state === 'cancelled';
  return html`<div class="stack" role="status">
    <div class="row small"><strong>${count(acted)}${bulk.total === null ? '' : ` of ${count(bulk.total)}`}</strong><span class="quiet">${bulk.state}</span></div>
    <${Bar} part=${bulk.total ? acted / bulk.total : ended ? 1 : 0} kind=${bulk.state === 'done' ? 'good' : ''} />
    <dl class="facts small">${Object.entries(bulk.outcomes).map(([word, number]) => html`<dt key=${word}>${word}</dt><dd>${count(number)}</dd>`)}</dl>
    ${bulk.errors.length > 0 && html`<details class="small"><summary>Left alone or refused</summary><ul class="plain">${bulk.errors.map((one) => html`<li key=${one.task_id}><span class="mono">${one.task_id}</span> ${one.detail}</li>`)}</ul></details>`}
    ${!ended && html`<div class="row">
      ${bulk.state === 'running' ? html`<button type="button" onClick=${() => turn('pause')}>Pause</button>` : html`<button type="button" onClick=${() => turn('resume')}>Go on</button>`}
      <button type="button" class="danger" onClick=${() => turn('cancel')}>Stop here</button></div>
      <p class="small quiet">The gateway goes on when this is closed.</p>`}
  </div>`;
}

/** The phases that the action may touch, of those that were found. */
function Outcomes({ kind, preview, ticked, setTicked }) {
  const phases = Object.entries(preview.by_phase);
  const fits = ([phase]) => FINAL.has(phase) === (kind === 'retry');
  const toggle = (phase) => {
    const next = new Set(ticked);
    if (!next.delete(phase)) next.add(phase);
    setTicked(next);
  };
  return html`<fieldset class="outcomes"><legend>Which of them</legend>
    ${phases.map((entry) => {
      const [phase, number] = entry;
      const id = `outcome-${phase}`;
      return html`<div class="row" key=${phase}><input type="checkbox" id=${id} disabled=${!fits(entry)} checked=${fits(entry) && ticked.has(phase)} onChange=${() => toggle(phase)} />
        <label for=${id}>${count(number)}${preview.more ? '+' : ''} ${phaseWord(phase)}${phase === 'succeeded' && kind === 'retry' ? html` <strong>they succeeded: this runs them a second time</strong>` : ''}</label></div>`;
    })}
    ${phases.length === 0 && html`<p class="quiet">No task fits.</p>`}
  </fieldset>`;
}

/** Everything that fits the filters, as one operation of the gateway. */
function All({ kind, filters, onClose, onDone }) {
  const [preview, setPreview] = useState(null);
  const [ticked, setTicked] = useState(new Set());
  const [rate, setRate] = useState('');
  const [terminate, setTerminate] = useState(false);
  const [bulk, setBulk] = useState(null);
  const { title, danger, says } = KINDS[kind];
  useEffect(() => {
    post('/v1/bulk', { action: kind, filter: filters, dry_run: true, ...(kind === 'retry' ? { include_succeeded: true } : {}) }).then((found) => {
      setPreview(found);
      setTicked(new Set(Object.keys(found.by_phase).filter((phase) => (kind === 'retry' ? USUAL.has(phase) : !FINAL.has(phase)))));
    }, (error) => { toast(error.message, 'bad'); onClose(); });
  }, []);
  useEffect(() => {
    if (!bulk || bulk.state === 'done' || bulk.state === 'cancelled') return undefined;
    const timer = setTimeout(() => get(`/v1/bulk/${bulk.id}`).then(setBulk, () => setBulk({ ...bulk })), AGAIN_MS);
    return () => clearTimeout(timer);
  }, [bulk]);
  useEffect(() => {
    if (bulk?.state !== 'done') return;
    toast(`${title}: ${count(bulk.done)} done${bulk.failed ? `, ${count(bulk.failed)} refused` : ''}`, bulk.failed ? 'warn' : 'good');
    onDone();
  }, [bulk?.state]);
  if (!preview) return null;
  const chosen = [...ticked].filter((phase) => preview.by_phase[phase]);
  const number = chosen.reduce((sum, phase) => sum + preview.by_phase[phase], 0);
  const run = async () => {
    const { status, ...rest } = filters;
    const body = { action: kind, filter: { ...rest, ...(status ? { status } : {}), phase: chosen } };
    if (kind === 'retry' && ticked.has('succeeded')) body.include_succeeded = true;
    if (kind === 'revoke' && terminate) body.terminate = true;
    if (Number(rate) > 0) body.rate = Number(rate);
    const begun = await attempt(() => post('/v1/bulk', body), '');
    if (begun) setBulk(begun);
    return 'stay';
  };
  if (bulk) return html`<${Dialog} title="${KINDS[kind].doing} ${bulk.total === null ? 'tasks' : `${count(bulk.total)} tasks`}" onClose=${onClose}><${Progress} bulk=${bulk} onChange=${setBulk} /><//>`;
  return html`<${Dialog} title="${title} ${count(number)}${preview.more ? '+' : ''} tasks?" onClose=${onClose} action=${run}
      actionText="${title} ${count(number)}" danger=${danger} nothing=${number === 0}>
    <p>${says}</p>
    <${Outcomes} kind=${kind} preview=${preview} ticked=${ticked} setTicked=${setTicked} />
    ${kind === 'retry' && preview.already_retried > 0 && html`<p class="small">${count(preview.already_retried)} were sent again before, and are left alone.</p>`}
    ${preview.more && html`<${Notice} kind="warn">There are more than were counted. All that fit are part of it.<//>`}
    ${kind === 'revoke' && html`<label class="row"><input type="checkbox" checked=${terminate} onChange=${(event) => setTerminate(event.target.checked)} /> Stop what runs (SIGTERM)</label>`}
    <label class="field"><span>At most per second (empty: as fast as it goes)</span><input type="number" min="0" step="any" value=${rate} onInput=${(event) => setRate(event.target.value)} /></label>
  <//>`;
}

export function BulkActions({ filters, picked, onDone }) {
  const [kind, setKind] = useState(null);
  if (!may('control')) return html`<span></span>`;
  const close = () => setKind(null);
  const scope = picked.length ? `${count(picked.length)} selected` : 'All that fit';
  return html`<div class="bulk row ${picked.length ? 'picked' : ''}" role="group" aria-label="Many at once">
    <span class="small quiet">${scope}:</span>
    <button type="button" onClick=${() => setKind('retry')}>Retry…</button>
    <button type="button" class="danger" onClick=${() => setKind('revoke')}>Revoke…</button>
    ${kind && (picked.length
      ? html`<${Picked} kind=${kind} ids=${picked} onClose=${close} onDone=${onDone} />`
      : html`<${All} kind=${kind} filters=${filters} onClose=${close} onDone=${onDone} />`)}
  </div>`;
}
