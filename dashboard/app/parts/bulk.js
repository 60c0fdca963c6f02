// Revoke or retry many tasks: those that are ticked, or all that fit the filters. Counts first, acts after a yes.

import { html, useState } from '../view.js';
import { get, post, segment } from '../api.js';
import { FINAL, count } from '../words.js';
import { Dialog } from './dialog.js';
import { Bar } from './basics.js';
import { toast } from './toasts.js';

/** So many calls run at the same time. */
const AT_ONCE = 6;
/** No more tasks than this in one go; the count says so. */
const MOST = 5000;
const PAGE = 500;

/** The tasks that fit, as far as `MOST`. */
export async function collect(filters) {
  const found = [];
  let cursor;
  do {
    const page = await get('/v1/tasks', { ...filters, limit: PAGE, cursor });
    found.push(...page.tasks);
    cursor = page.next;
  } while (cursor && found.length < MOST);
  return { tasks: found.slice(0, MOST), more: Boolean(cursor) };
}

/** What was ticked, as it is now. */
const chosenOf = (ids) => Promise.all(ids.map((id) => get(`/v1/tasks/${segment(id)}`)));

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

const KINDS = {
  revoke: {
    title: 'Revoke', danger: true, fits: (task) => !FINAL.has(task.phase),
    act: (id) => post(`/v1/tasks/${segment(id)}/revoke`, {}),
  },
  retry: {
    title: 'Retry', fits: (task) => FINAL.has(task.phase),
    act: (id) => post(`/v1/tasks/${segment(id)}/retry`, {}),
  },
};

export function BulkActions({ filters, picked, onDone }) {
  const [plan, setPlan] = useState(null);
  const [part, setPart] = useState(null);
  const prepare = async (kind) => {
    try {
      const { tasks, more } = picked.length ? { tasks: await chosenOf(picked), more: false } : await collect(filters);
      const ids = tasks.filter(KINDS[kind].fits).map((task) => task.task_id);
      setPlan({ kind, ids, left: tasks.length - ids.length, more });
    } catch (error) {
      toast(error.message, 'bad');
    }
  };
  const run = async () => {
    const { kind, ids } = plan;
    setPart(0);
    const refused = await forEach(ids, KINDS[kind].act, setPart);
    setPart(null);
    toast(`${KINDS[kind].title}: ${count(ids.length - refused)} done${refused ? `, ${count(refused)} refused` : ''}`, refused ? 'warn' : 'good');
    onDone();
  };
  const scope = picked.length ? `${count(picked.length)} selected` : 'all that fit';
  return html`<div class="bulk row ${picked.length ? 'picked' : ''}" role="group" aria-label="Many at once">
    <span class="small quiet">${picked.length ? scope : 'All that fit'}:</span>
    <button type="button" onClick=${() => prepare('retry')}>Retry…</button>
    <button type="button" class="danger" onClick=${() => prepare('revoke')}>Revoke…</button>
    ${plan && html`<${Dialog} title="${KINDS[plan.kind].title} ${count(plan.ids.length)} tasks?" onClose=${() => setPlan(null)} action=${run}
        actionText="${KINDS[plan.kind].title} ${count(plan.ids.length)}" danger=${KINDS[plan.kind].danger} nothing=${plan.ids.length === 0}>
      <p>${plan.left > 0 ? `${count(plan.left)} others are left alone: ${plan.kind === 'retry' ? 'they have not ended' : 'they have ended already'}. ` : ''}
        ${plan.more ? `There are more than ${count(MOST)}; these are the newest.` : ''}</p>
      ${part !== null && html`<${Bar} part=${part} />`}
    <//>`}
  </div>`;
}
