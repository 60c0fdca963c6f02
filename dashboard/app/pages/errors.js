// Failures by what they have in common: the error's type and the innermost frame.

import { html, useEffect, useMemo, useState } from '../view.js';
import { may, post, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { count } from '../words.js';
import { go, to } from '../place.js';
import { Name, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Spark } from '../parts/chart.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { Segments } from '../parts/segments.js';
import { attempt } from '../parts/toasts.js';

const RANGES = [['1h', 3600, '1 hour'], ['24h', 86400, '24 hours'], ['7d', 604800, '7 days'], ['30d', 2592000, '30 days']];

function Requeue({ group, onClose }) {
  const [rate, setRate] = useState('10');
  const [matched, setMatched] = useState(null);
  useEffect(() => {
    post('/v1/dead-letters/requeue', { fingerprint: group.fingerprint, dry_run: true }).then(setMatched, (error) => setMatched({ error }));
  }, []);
  const run = () => attempt(
    () => post('/v1/dead-letters/requeue', { fingerprint: group.fingerprint, ...(Number(rate) > 0 ? { max_per_second: Number(rate) } : {}) }),
    (done) => `${count(done.requeued)} re-queued`,
  );
  return html`<${Dialog} title="Run ${group.type} of ${group.task} again?" onClose=${onClose} action=${run} actionText="Re-queue">
    <p>${matched === null ? 'Counting…' : matched.error ? matched.error.message
      : `${count(matched.matched)} dead letters of this kind${matched.remaining ? ' (and more)' : ''} are submitted again, and leave the list.`}</p>
    <label class="field"><span>At most per second</span><input type="number" min="0" step="any" value=${rate} onInput=${(event) => setRate(event.target.value)} /></label>
  <//>`;
}

/** The traceback of the newest failure of a group, read when somebody wants to see it. */
function Trace({ id }) {
  const [open, setOpen] = useState(false);
  const { data, error } = useLoaded(open ? `/v1/tasks/${segment(id)}` : null);
  return html`<details class="small" onToggle=${(event) => setOpen(event.target.open)}><summary>Trace</summary>
    <${Trouble} error=${error} what="trace" />
    ${data && (data.traceback ? html`<pre class="json" tabindex="0" role="region" aria-label="traceback" translate=${false}>${data.traceback}</pre>` : html`<p class="quiet">no traceback</p>`)}</details>`;
}

export function Errors({ place }) {
  const range = place.query.get('range') || '24h';
  const span = (RANGES.find(([id]) => id === range) || RANGES[1])[1];
  const query = useMemo(() => ({ from: new Date(Date.now() - span * 1000).toISOString() }), [range]);
  const { data, error, reload } = useLoaded('/v1/stats/errors', query, { everyMs: 15000 });
  const [asked, setAsked] = useState(null);
  return html`<div class="stack">
    <div class="head"><h1>Errors</h1>
      <${Segments} label="Range" choices=${RANGES.map(([id, , name]) => [id, name])} chosen=${range} choose=${(id) => go(to('errors', { range: id }))} /></div>
    <${Trouble} error=${error} what="statistics of errors" />
    ${data && data.groups.length === 0 && html`<${Empty} kind="good" title="Nothing failed in this time">Failures are grouped here by task, error type and innermost frame.<//>`}
    ${data && data.groups.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Errors"><table class="folds">
      <thead><tr><th>Error</th><th>Task</th><th class="number">Count</th><th>Trend</th><th>First</th><th>Last</th><th>Example</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.groups.map((group) => html`<tr key=${group.fingerprint}>
        <td class="wrap"><strong translate=${false}>${group.type}</strong> <span class="quiet small" translate=${false}>${group.message}</span><div class="mono small quiet">${group.frame ? html`<${Name} text=${group.frame} />` : 'no frame'}</div><${Trace} key=${group.last_task_id} id=${group.last_task_id} /></td>
        <td class="wrap"><a translate=${false} href=${to('tasks', { task: group.task, phase: 'failed,lost' })}>${group.task}</a></td>
        <td class="number" data-name="count"><a href=${to('tasks', { task: group.task, phase: 'failed,lost', q: group.type, from: query.from })} aria-label="${count(group.count)} tasks with ${group.type}" translate=${false}>${count(group.count)}</a></td><td><${Spark} values=${group.trend.map((point) => point.count)} name="trend of ${group.type}" /></td>
        <td class="nowrap" data-name="first"><${Time} value=${group.first_at} /></td><td class="nowrap" data-name="last"><${Time} value=${group.last_at} /></td><td><${TaskLink} id=${group.last_task_id} /></td>
        <td class="actions">${may('control') && html`<button type="button" aria-label="Re-queue ${group.type} of ${group.task}" onClick=${() => setAsked(group)}>Re-queue…</button>`}</td></tr>`)}</tbody>
    </table></div>`}
    ${asked && html`<${Requeue} group=${asked} onClose=${() => { setAsked(null); reload(); }} />`}
  </div>`;
}
