// How the tasks that fit stand, as a row of tabs with counts: one look says whether something is wrong, one press shows it.

import { html } from '../view.js';
import { useLoaded } from '../loading.js';
import { count } from '../words.js';

/** Each tab is a phase filter. */
const TABS = [
  ['', 'All'],
  ['accepted,held,waiting,queued', 'Waiting'],
  ['received,running,retrying', 'Running'],
  ['succeeded', 'Succeeded'],
  ['failed,lost', 'Failed or lost'],
  ['revoked,expired,skipped,ignored', 'Other ends'],
];

export function OutcomeTabs({ filters, change }) {
  const { phase, status, ...rest } = filters;
  const { data } = useLoaded('/v1/stats/outcomes', rest, { everyMs: 10000 });
  const chosen = [].concat(phase || '').join(',');
  const number = (phases) => {
    if (!data) return '';
    const names = phases ? phases.split(',') : Object.keys(data.by_phase);
    return `${count(names.reduce((sum, name) => sum + (data.by_phase[name] || 0), 0))}${data.more ? '+' : ''}`;
  };
  return html`<div class="tabs" role="group" aria-label="Outcomes">${TABS.map(([phases, name]) => html`<button type="button" key=${name}
    aria-pressed=${!status && chosen === phases} onClick=${() => change({ ...rest, phase: phases || undefined })}><span>${name}</span> <span class="count">${number(phases)}</span></button>`)}</div>`;
}
