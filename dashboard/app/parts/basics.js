// Small parts that every page uses: phase, time, notice, link to a task.

import { html } from '../view.js';
import { at, atFull, short, tone } from '../words.js';
import { taskPage, to } from '../place.js';

export const Phase = ({ phase, status }) => {
  const own = phase === 'running' && status && status !== 'STARTED' ? ` · ${status}` : '';
  return html`<span class="phase ${tone(phase)}">${phase}${own}</span>`;
};

export const Time = ({ value }) =>
  (value ? html`<time datetime=${value} title=${atFull(value)}>${at(value)}</time>` : html`<span>–</span>`);

/** What somebody else named: it is shown as it is in every language. */
export const Name = ({ text }) => html`<span translate=${false}>${text}</span>`;

export const TaskLink = ({ id }) => (id ? html`<a class="mono" translate=${false} href=${taskPage(id)} title=${id}>${short(id)}</a>` : '–');

export const Labels = ({ labels }) => Object.entries(labels || {}).map(([key, value]) => html`
  <a class="label" translate=${false} key=${key} href=${to('tasks', { label: `${key}:${value}` })}>${key}:${value}</a> `);

export const Notice = ({ kind = '', children, live }) =>
  html`<div class="notice ${kind}" role=${live ? 'status' : undefined}>${children}</div>`;

export { Json } from './json.js';

/** What went wrong with a load: a missing endpoint reads differently from an error. */
export function Trouble({ error, what }) {
  if (!error) return null;
  if (error.status === 404) {
    return html`<${Notice} kind="warn">This gateway has no ${what}.<//>`;
  }
  if (error.status === 401 || error.status === 403) {
    return html`<${Notice} kind="warn">${error.message}. A token with the scope for it can be entered under “Access token”.<//>`;
  }
  const text = error.status ? error.message : 'The gateway does not answer; trying again.';
  return html`<${Notice} kind="bad" live><strong>${what}:</strong> ${text}<//>`;
}

export const Bar = ({ part, kind = '', name = 'progress' }) => {
  const width = Math.max(0, Math.min(100, part * 100));
  return html`<div class="bar ${kind}" role="progressbar" aria-label=${name} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(width)}>
    <div style=${{ width: `${width}%` }}></div></div>`;
};

/** How far a task is, from its own `update_state` meta; null when it does not say. */
export function progressOf(meta) {
  if (!meta || typeof meta !== 'object') return null;
  const done = [meta.progress, meta.current, meta.done, meta.completed].find((one) => typeof one === 'number');
  const total = [meta.total, meta.count].find((one) => typeof one === 'number' && one > 0);
  if (typeof meta.percent === 'number') return { part: meta.percent / 100, text: `${meta.percent} %` };
  if (done === undefined) return null;
  if (total !== undefined) return { part: done / total, text: `${done} of ${total}` };
  return { part: done > 1 ? done / 100 : done, text: `${done}` };
}
