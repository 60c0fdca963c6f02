// The tasks of a canvas along one clock: how long each waited and ran, and which one the others waited for.

import { html } from '../view.js';
import { between, seconds, tone } from '../words.js';
import { taskPage } from '../place.js';

/** More rows would not be read. */
const MOST = 100;

const part = (from, to, start, whole) => ({ left: `${(100 * Math.max(0, between(start, from))) / whole}%`, width: `${Math.max(0.4, (100 * between(from, to)) / whole)}%` });

export function Gantt({ tasks, here }) {
  const begins = (task) => new Date(task.started_at || task.submitted_at);
  const rows = [...tasks].sort((a, b) => begins(a) - begins(b)).slice(0, MOST);
  if (rows.length < 2) return null;
  const now = new Date().toISOString();
  const start = rows.reduce((least, row) => (row.submitted_at < least ? row.submitted_at : least), rows[0].submitted_at);
  const end = rows.reduce((most, row) => { const at = row.finished_at || now; return at > most ? at : most; }, start);
  const whole = Math.max(0.001, between(start, end));
  return html`<div class="gantt scroll" tabindex="0" role="region" aria-label="Canvas along one clock"><ol>${rows.map((row) => {
    const ended = row.finished_at || (row.started_at ? now : null);
    const waited = seconds(between(row.submitted_at, row.started_at || ended || now));
    const ran = row.started_at ? seconds(between(row.started_at, ended)) : null;
    return html`<li key=${row.task_id} class=${row.task_id === here ? 'here' : ''}>
      <a class="plain-link" href=${taskPage(row.task_id)}>${(row.task || 'unknown').replace(/^.*\.(?=.)/, '')}</a>
      <span class="track" aria-hidden="true">
        <i class="waited" style=${part(row.submitted_at, row.started_at || ended || now, start, whole)}></i>
        ${row.started_at && html`<i class="ran ${tone(row.phase)}" style=${part(row.started_at, ended, start, whole)}></i>`}</span>
      <span class="small quiet">${ran ? `${waited} + ${ran}` : waited}</span></li>`;
  })}</ol></div>`;
}
