// What happened to a task and how long each step took: a bar in proportion, and a list.

import { html } from '../view.js';
import { between, seconds, tone } from '../words.js';
import { Time } from './basics.js';

/** A task that reports often would fill the page: of its reports the first and the last are shown. */
function thinned(events) {
  return events.filter((event, index) => event.event !== 'progress'
    || events[index - 1]?.event !== 'progress' || events[index + 1]?.event !== 'progress');
}

/** A run that was over before its start was heard of is known from the task. */
function steps(task, events) {
  const known = [];
  if (!events.some((event) => event.seq <= 1)) known.push({ at: task.submitted_at, phase: 'accepted', status: 'PENDING' });
  known.push(...thinned(events));
  if (task.finished_at && !events.some((event) => event.phase === task.phase)) {
    known.push({ at: task.finished_at, phase: task.phase, status: task.status, worker: task.worker });
  }
  if (task.started_at && !known.some((step) => step.phase === 'running')) {
    const before = known.findIndex((step) => step.at > task.started_at || step.phase === task.phase);
    const start = { at: task.started_at, phase: 'running', status: 'STARTED', worker: task.worker };
    known.splice(before < 0 ? known.length : before, 0, start);
  }
  return known;
}

/** Widths by the share of the whole; the shortest is still seen. */
function Spans({ list }) {
  const whole = between(list[0].at, list.at(-1).at);
  if (!(whole > 0)) return null;
  const parts = list.slice(0, -1).map((step, index) => ({ ...step, took: Math.max(0, between(step.at, list[index + 1].at)) }));
  return html`<div class="spans" role="img" aria-label=${parts.map((part) => `${part.phase} ${seconds(part.took)}`).join(', ')}>
    ${parts.filter((part) => part.took > 0).map((part, index) => html`<div key=${index} class="${tone(part.phase)} ${part.phase}" title="${part.phase} ${seconds(part.took)}" style=${{ flex: part.took / whole }}></div>`)}</div>`;
}

const note = (step, before) => [
  step.status && step.phase === 'running' && step.status !== 'STARTED' && step.status,
  step.retries > 0 && `attempt ${step.retries + 1}`,
  step.worker && before && before.worker !== step.worker && step.worker,
  step.reason,
].filter(Boolean).join(' · ');

export function Timeline({ task, events }) {
  const list = steps(task, events);
  const took = (index) => (index + 1 < list.length ? seconds(between(list[index].at, list[index + 1].at)) : '');
  return html`<div><${Spans} list=${list} /><ol class="timeline">${list.map((step, index) => html`<li key=${index} class=${tone(step.phase)}>
    <span class="what">${step.phase}</span><span class="at"><${Time} value=${step.at} /></span>
    <span class="small quiet wrap" translate=${false}>${note(step, list[index - 1])}</span><span class="took">${took(index)}</span>
  </li>`)}</ol></div>`;
}
