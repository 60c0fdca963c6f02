// Each run of a task that was retried: when it began, where, how it ended.

import { html } from '../view.js';
import { between, seconds } from '../words.js';
import { Phase, Time } from './basics.js';

/** Events by attempt. */
export function attempts(events) {
  const list = [];
  for (const event of events) {
    const one = (list[event.retries || 0] ||= { number: (event.retries || 0) + 1, started: null });
    if (event.phase === 'running' && !one.started) one.started = event.at;
    one.worker = event.worker || one.worker;
    one.phase = event.phase;
    one.ended = event.at;
    one.meta = event.meta;
  }
  return list.filter(Boolean);
}

export function Attempts({ task, events }) {
  const list = attempts(events);
  if (!task.retries && list.length < 2) return null;
  return html`<section class="card"><h2>Attempts</h2><div class="scroll" tabindex="0" role="region" aria-label="Attempts"><table>
    <thead><tr><th>Attempt</th><th>Began</th><th>Ended as</th><th class="number">Took</th><th>Worker</th></tr></thead>
    <tbody>${list.map((one) => html`<tr key=${one.number}><td>${one.number}</td><td><${Time} value=${one.started} /></td>
      <td><${Phase} phase=${one.phase} /></td><td class="number">${seconds(between(one.started, one.ended))}</td><td translate=${false}>${one.worker || '–'}</td></tr>`)}</tbody>
  </table></div></section>`;
}
