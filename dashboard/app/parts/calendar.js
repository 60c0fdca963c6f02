// Runs of schedules on a calendar: a week by days, what ran and what is still to come, each with its outcome.

import { html, useEffect, useState } from '../view.js';
import { get, segment } from '../api.js';
import { at, zone } from '../words.js';
import { taskPage, to } from '../place.js';
import { say, speaks } from '../languages/speech.js';

/** Runs of one schedule in one day that are shown one by one. */
const SHOWN = 6;
/** Schedules that are asked about. */
const MOST = 40;
const AHEAD = 200;
const BACK = 200;
/** Runs of one schedule that are read back to the first day shown. */
const MOST_BACK = 2000;
const TONES = { fired: 'good', skipped: 'warn', missed: 'warn', failed: 'bad' };

const shared = zone() === 'UTC' ? { timeZone: 'UTC' } : {};
const key = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit', ...shared });
const title = new Intl.DateTimeFormat(speaks === 'ko' ? 'ko-KR' : 'en-GB', { weekday: 'short', day: 'numeric', month: 'short', ...shared });

/** What is known of each schedule in these days: runs that were, ticks that will be. Days that are over have no ticks, days to come no runs. */
async function load(schedules, from, until, signal) {
  const within = (time) => new Date(time) >= from && new Date(time) < until;
  const now = new Date();
  const one = async ({ name, paused }) => {
    const path = `/v1/schedules/${segment(name)}`;
    const runs = [];
    let page = { next: undefined };
    for (let goesOn = from <= now; goesOn;) {
      page = await get(`${path}/runs`, { limit: BACK, cursor: page.next }, signal);
      runs.push(...page.runs);
      goesOn = page.next && runs.length < MOST_BACK && new Date(page.runs.at(-1).scheduled_at) >= from;
    }
    const { ticks } = paused || until <= now ? { ticks: [] } : await get(`${path}/preview`, { n: AHEAD }, signal);
    return [...runs.map((run) => ({ name, at: run.scheduled_at, outcome: run.outcome, id: run.task_id })), ...ticks.map((tick) => ({ name, at: tick }))].filter(({ at: time }) => within(time));
  };
  return (await Promise.all(schedules.slice(0, MOST).map(one))).flat();
}

/** Midnight of the day that is so many days after today, by the reader's clock. */
const midnight = (days, now = new Date()) => (zone() === 'UTC' ? new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + days))
  : new Date(now.getFullYear(), now.getMonth(), now.getDate() + days));

/** `Map(day, Map(name, entries by time))` */
export function byDay(entries) {
  const days = new Map();
  for (const entry of [...entries].sort((a, b) => new Date(a.at) - new Date(b.at))) {
    const day = key.format(new Date(entry.at));
    if (!days.has(day)) days.set(day, new Map());
    const names = days.get(day);
    names.set(entry.name, [...(names.get(entry.name) || []), entry]);
  }
  return days;
}

function Entry({ entry }) {
  const tone = Object.hasOwn(TONES, entry.outcome ?? '') ? TONES[entry.outcome] : '';
  const time = at(entry.at).slice(-8, -3);
  return entry.id ? html`<a class="phase ${tone}" href=${taskPage(entry.id)} title=${entry.outcome}>${time}</a>`
    : html`<span class="phase ${tone}" title=${entry.outcome || 'to come'}>${time}</span>`;
}

export function Calendar({ schedules }) {
  const [shift, setShift] = useState(0);
  const [state, setState] = useState({ entries: null, error: null });
  const first = shift * 7 - 1;
  const names = schedules.map(({ name, paused }) => name + paused).join(' ');
  useEffect(() => {
    const abort = new AbortController();
    const show = (entries, error) => abort.signal.aborted || setState({ entries, error });
    show(null, null);
    load(schedules, midnight(first), midnight(first + 7), abort.signal).then((entries) => show(entries, null), (error) => show(null, error));
    return () => abort.abort();
  }, [shift, names]);
  const days = byDay(state.entries || []);
  return html`<section class="stack" aria-label="Calendar">
    <div class="row"><button type="button" onClick=${() => setShift(shift - 1)}>Week before</button><button type="button" disabled=${shift === 0} onClick=${() => setShift(0)}>Today</button>
      <button type="button" onClick=${() => setShift(shift + 1)}>Week after</button></div>
    ${state.error && html`<p class="quiet">${state.error.message}</p>`}
    ${schedules.length > MOST && html`<p class="small quiet">${say('The first {count} schedules are shown.', { count: MOST })}</p>`}
    <div class="calendar">${[...Array(7).keys()].map((index) => {
      const day = midnight(first + index);
      const here = days.get(key.format(day)) || new Map();
      return html`<section class="card ${key.format(day) === key.format(new Date()) ? 'today' : ''}" key=${key.format(day)}><h2>${title.format(day)}</h2>
        ${[...here].map(([name, entries]) => html`<div class="small" key=${name}><a translate=${false} class="wrap" href=${to('schedules', { name })}>${name}</a>
          <div class="row">${entries.slice(0, SHOWN).map((entry) => html`<${Entry} key=${entry.at + entry.outcome} entry=${entry} />`)}
            ${entries.length > SHOWN && html`<span class="quiet">${say('and {count} more', { count: entries.length - SHOWN })}</span>`}</div></div>`)}
        ${state.entries && here.size === 0 && html`<p class="small quiet">–</p>`}</section>`;
    })}</div>
  </section>`;
}
