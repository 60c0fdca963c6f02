// What went wrong with the fleet and what taskgate did about it.

import { html } from '../view.js';
import { useLoaded } from '../loading.js';
import { TaskLink, Time, Trouble } from '../parts/basics.js';

export function Incidents() {
  const { data, error } = useLoaded('/v1/incidents', { limit: 100 }, { everyMs: 5000 });
  const list = data?.incidents || [];
  return html`<div class="stack">
    <div class="head"><h1>Incidents</h1></div>
    <${Trouble} error=${error} what="list of incidents" />
    ${data && list.length === 0 && html`<p class="quiet">Nothing is known.</p>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Incidents"><table>
      <thead><tr><th>When</th><th>Kind</th><th>What</th><th>Task</th></tr></thead>
      <tbody>${list.map((one, index) => html`<tr key=${one.incident_id ?? one.id ?? index}><td class="nowrap"><${Time} value=${one.at || one.started_at || one.detected_at} /></td>
        <td>${one.kind}</td><td class="wrap">${one.detail || one.message || one.summary}</td><td>${one.task_id ? html`<${TaskLink} id=${one.task_id} />` : '–'}</td></tr>`)}</tbody>
    </table></div>`}
  </div>`;
}
