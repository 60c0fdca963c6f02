// What went wrong with the fleet and what taskgate did about it.

import { html } from '../view.js';
import { useLoaded } from '../loading.js';
import { to } from '../place.js';
import { Empty } from '../parts/icons.js';
import { TaskLink, Time, Trouble } from '../parts/basics.js';

const NAMES = { silent_worker: 'silent worker', no_consumer: 'nobody serves it', over_budget: 'over its budget', outbox_stuck: 'outbox stuck',
  canvas_stuck: 'step not sent', ledger_down: 'ledger takes no writes', redis_down: 'Redis takes no writes', redis_evicts: 'Redis drops messages',
  deaf_worker: 'answers nothing', repeated_delivery: 'delivered again and again', 'repair-suspended': 'repairs suspended', undecided: 'not decided' };
const OF_TASKS = new Set(['over_budget', 'canvas_stuck', 'repeated_delivery', 'undecided']);

function subject({ kind, subject: name }) {
  if (OF_TASKS.has(kind)) return html`<${TaskLink} id=${name} />`;
  if (kind === 'no_consumer') return html`<a href=${to(`queues/${encodeURIComponent(name)}`)}>${name}</a>`;
  return name;
}

export function Incidents() {
  const { data, error } = useLoaded('/v1/incidents', undefined, { everyMs: 5000 });
  const list = data?.incidents || [];
  return html`<div class="stack">
    <div class="head"><h1>Incidents</h1></div>
    <${Trouble} error=${error} what="list of incidents" />
    ${data && list.length === 0 && html`<${Empty} kind="good" title="Nothing is wrong now">Silent workers, queues that nobody serves, tasks over their budget and a stuck outbox would be listed here.<//>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Incidents"><table class="folds">
      <thead><tr><th>Since</th><th>Kind</th><th>Subject</th><th>What</th></tr></thead>
      <tbody>${list.map((one, index) => html`<tr key=${one.kind + one.subject + index}><td class="nowrap"><${Time} value=${one.since} /></td>
        <td class="nowrap">${NAMES[one.kind] || one.kind}</td>
        <td class="wrap">${subject(one)}</td><td class="wrap">${one.detail}</td></tr>`)}</tbody>
    </table></div>`}
  </div>`;
}
