// What failed for good or was lost, until somebody runs it again or puts it away.

import { html, useEffect, useMemo, useState } from '../view.js';
import { may, post, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { count } from '../words.js';
import { go, to } from '../place.js';
import { Name, Phase, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { attempt } from '../parts/toasts.js';
import { Filters, filtersOf } from './tasks.js';

function All({ filters, kind, onClose }) {
  const [plan, setPlan] = useState(null);
  const [rate, setRate] = useState('10');
  useEffect(() => {
    post('/v1/dead-letters/requeue', { filter: filters, dry_run: true }).then(setPlan, (error) => setPlan({ error }));
  }, []);
  const run = () => (kind === 'delete'
    ? attempt(() => remove('/v1/dead-letters', filters), (done) => `${count(done.deleted)} deleted`)
    : attempt(() => post('/v1/dead-letters/requeue', { filter: filters, ...(Number(rate) > 0 ? { max_per_second: Number(rate) } : {}) }),
      (done) => `${count(done.requeued)} re-queued${done.remaining ? ', there are more' : ''}`));
  const text = plan === null ? 'Counting…' : plan.error ? plan.error.message
    : `${count(plan.matched)} dead letters fit${plan.remaining ? ' (and more)' : ''}. ${kind === 'delete' ? 'They stay in the history.' : ''}`;
  return html`<${Dialog} title=${kind === 'delete' ? 'Delete all that fit?' : 'Run all that fit again?'} onClose=${onClose} action=${run}
      actionText=${kind === 'delete' ? 'Delete' : 'Re-queue'} danger=${kind === 'delete'}>
    <p>${text}</p>
    ${kind !== 'delete' && html`<label class="field"><span>At most per second</span>
      <input type="number" min="0" step="any" value=${rate} onInput=${(event) => setRate(event.target.value)} /></label>`}
  <//>`;
}

export function DeadLetters({ place }) {
  const filters = useMemo(() => filtersOf(place.query), [place.query.toString()]);
  const cursor = place.query.get('cursor') || undefined;
  const { data, error, reload } = useLoaded('/v1/dead-letters', { ...filters, cursor, limit: 100 }, { everyMs: 10000, same: filters });
  const [asked, setAsked] = useState(null);
  const requeue = async (id) => {
    await attempt(() => post(`/v1/dead-letters/${segment(id)}/requeue`), 'Re-queued');
    reload();
  };
  const [dismissed, setDismissed] = useState(null);
  const dismiss = async (id) => {
    await attempt(() => remove(`/v1/dead-letters/${segment(id)}`), 'Deleted');
    reload();
  };
  return html`<div class="stack">
    <div class="head"><h1>Dead letters</h1>${may('control') && html`<div class="row">
      <button type="button" onClick=${() => setAsked('requeue')}>Re-queue all…</button>
      <button type="button" class="danger" onClick=${() => setAsked('delete')}>Delete all…</button></div>`}</div>
    <${Filters} filters=${filters} withPhase=${false} change=${(next) => go(to('dead-letters', next))} />
    <${Trouble} error=${error} what="list of dead letters" />
    ${data && data.tasks.length === 0 && html`<${Empty} kind="good" title="No dead letters">What fails for good or is lost waits here, until somebody runs it again or puts it away.<//>`}
    ${data && data.tasks.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Dead letters"><table class="folds">
      <thead><tr><th>Id</th><th>Task</th><th>Phase</th><th>Error</th><th>Ended</th><th class="number">Retries</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.tasks.map((task) => html`<tr key=${task.task_id}>
        <td class="nowrap"><${TaskLink} id=${task.task_id} /></td><td class="wrap" translate=${false}>${task.task}</td><td><${Phase} ...${task} /></td>
        <td class="wrap small"><span translate=${false}><strong>${task.error?.type}</strong> ${task.error?.message?.slice(0, 200)}</span>${task.retried_as && html` (retried as <${TaskLink} id=${task.retried_as} />)`}</td>
        <td class="nowrap"><${Time} value=${task.finished_at} /></td><td class="number" data-name="retries">${task.retries}</td>
        <td class="actions">${may('control') && html`<div class="row"><button type="button" aria-label="Re-queue ${task.task_id}" onClick=${() => requeue(task.task_id)}>Re-queue</button>
          <button type="button" class="danger" aria-label="Delete ${task.task_id}" onClick=${() => setDismissed(task)}>Delete…</button></div>`}</td></tr>`)}</tbody>
    </table></div>
    ${data.next && html`<a class="button" href=${to('dead-letters', { ...filters, cursor: data.next })}>Older ones</a>`}`}
    ${dismissed && html`<${Dialog} title="Delete this dead letter?" danger actionText="Delete" onClose=${() => setDismissed(null)} action=${() => dismiss(dismissed.task_id)}>
      <p><${Name} text=${dismissed.task} /> leaves this list and is not run again from here. It stays in the history.</p><//>`}
    ${asked && html`<${All} filters=${filters} kind=${asked} onClose=${() => { setAsked(null); reload(); }} />`}
  </div>`;
}
