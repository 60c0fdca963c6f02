// A heat map: days down, hours across, a square for each hour. Its numbers are in the squares' names and in a table.

import { html } from '../view.js';
import { say } from '../languages/speech.js';
import { zone } from '../words.js';

const HOURS = [...Array(24).keys()];
/** Steps of colour: by rank and not by value, so that a single slow hour does not make all others pale. */
const STEPS = 5;

const shared = zone() === 'UTC' ? { timeZone: 'UTC' } : {};
const parts = new Intl.DateTimeFormat('en-GB', { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', hourCycle: 'h23', ...shared });

/** The day and hour of a time, by the reader's clock. */
function placeOf(at) {
  const found = Object.fromEntries(parts.formatToParts(new Date(at)).map(({ type, value }) => [type, value]));
  return { day: `${found.year}-${found.month}-${found.day}`, hour: Number(found.hour) };
}

/** `[{day, hours: [value or null × 24]}]`, the newest day first. An hour that comes twice, when clocks change, keeps the larger value. */
export function byDay(points, valueOf) {
  const days = new Map();
  for (const point of points) {
    const { day, hour } = placeOf(point.at);
    if (!days.has(day)) days.set(day, Array(24).fill(null));
    const value = valueOf(point);
    if (value !== null && value !== undefined) days.get(day)[hour] = Math.max(value, days.get(day)[hour] ?? value);
  }
  return [...days].map(([day, hours]) => ({ day, hours })).sort((a, b) => (a.day < b.day ? 1 : -1));
}

/** From 1 (low) to `STEPS`; 0 without a value. */
export function stepOf(value, sorted) {
  if (value === null || sorted.length === 0) return 0;
  const rank = sorted.findIndex((one) => one >= value);
  return 1 + Math.min(STEPS - 1, Math.floor((rank / sorted.length) * STEPS));
}

export function Heat({ title, points, valueOf, unit }) {
  const days = byDay(points, valueOf);
  const sorted = days.flatMap(({ hours }) => hours).filter((value) => value !== null).sort((a, b) => a - b);
  const told = (value) => (value === null ? '–' : unit(value));
  return html`<figure class="plain heat">
    <div class="scroll" tabindex="0" role="region" aria-label=${title}><table>
      <thead><tr><th>${say('Day', {})}</th>${HOURS.map((hour) => html`<th key=${hour} class="hour">${String(hour).padStart(2, '0')}</th>`)}</tr></thead>
      <tbody>${days.map(({ day, hours }) => html`<tr key=${day}><th scope="row" class="nowrap">${day.slice(5)}</th>${hours.map((value, hour) => html`<td key=${hour} class="h${stepOf(value, sorted)}"
        title="${day} ${String(hour).padStart(2, '0')}:00 · ${told(value)}"><span class="hidden">${told(value)}</span></td>`)}</tr>`)}</tbody>
    </table></div>
    ${sorted.length > 0 && html`<figcaption class="small quiet row"><span>${unit(sorted[0])}</span>${[1, 2, 3, 4, 5].map((step) => html`<i key=${step} class="h${step}"></i>`)}<span>${unit(sorted.at(-1))}</span></figcaption>`}
  </figure>`;
}
