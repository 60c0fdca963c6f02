// What happened to a task and how long each step took.

import { html } from '../view.js';
import { between, seconds } from '../words.js';
import { Phase, Time } from './basics.js';

/** A task that reports often would fill the page: of its reports the first and the last are shown. */
function thinned(events) {
  return events.filter((event, index) => event.event !== 'progress'
    || events[index - 1]?.event !== 'progress' || events[index + 1]?.event !== 'progress');
}

function steps(task, events) {
  const known = [];
  if (!events.some((event) => event.seq <= 1)) known.push({ at: task.submitted_at, phase: 'accepted', status: 'PENDING' });
  known.push(...thinned(events));
  if (task.finished_at && !events.some((event) => event.phase === task.phase)) {
    known.push({ at: task.finished_at, phase: task.phase, status: task.status, worker: task.worker });
  }
  return known;
}

export function Timeline({ task, events }) {
  const list = steps(task, events);
  return html`<ol class="timeline">${list.map((step, index) => html`<li key=${index}>
    <${Phase} ...${step} /> <span class="at"><${Time} value=${step.at} />
      ${index > 0 && ` · after ${seconds(between(list[index - 1].at, step.at))}`}
      ${step.worker && index > 0 && list[index - 1].worker !== step.worker ? ` · ${step.worker}` : ''}
      ${step.retries > 0 ? ` · attempt ${step.retries + 1}` : ''}</span>
  </li>`)}</ol>`;
}
