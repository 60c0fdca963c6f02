// Figures over time of one task, one queue or all: any range, beside the day before, and hour by hour over a week.

import { html, useMemo } from '../view.js';
import { useLoaded, useTurn } from '../loading.js';
import { count, seconds } from '../words.js';
import { go, to } from '../place.js';
import { Notice, Trouble } from '../parts/basics.js';
import { Chart } from '../parts/chart.js';
import { Heat } from '../parts/heat.js';
import { QueueAges, QueueWaits } from '../parts/standings.js';
import { Segments } from '../parts/segments.js';

const DAY = 86400;
const RANGES = [['1h', '1 hour', 3600], ['6h', '6 hours', 21600], ['24h', '24 hours', DAY], ['7d', '7 days', 7 * DAY], ['custom', 'From … to']];
/** Steps divide a day, so that points of two days stand beside each other. */
const STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, DAY];
const POINTS = 150;
const AGAIN_MS = 15000;

/** `{from, to, step}` in seconds since 1970; null when what was entered is no range. */
export function windowOf(query, now) {
  const range = RANGES.find(([id]) => id === (query.get('range') || '24h')) || RANGES[2];
  let [from, until] = [now - range[2], now];
  if (range[0] === 'custom') [from, until] = ['from', 'to'].map((name) => Math.floor(new Date(query.get(name) || 0) / 1000));
  if (!(until > from)) return null;
  return { from, to: until, step: STEPS.find((step) => (until - from) / step <= POINTS) || 7 * DAY };
}

const asked = ({ from, to: until, step }, shift = 0) => ({ from: new Date((from - shift) * 1000).toISOString(), to: new Date((until - shift) * 1000).toISOString(), step });

/** The points of now with those of the day before at the same time of day. Of older days only hours may be known. */
export function beside(points, before, shift = DAY) {
  const known = new Map((before?.points || []).map((point) => [Math.round(new Date(point.at) / 1000), point]));
  const there = (at) => Math.round(new Date(at) / 1000) - shift;
  return points.map((point) => ({ ...point, before: before && known.get(there(point.at) - (there(point.at) % before.step)) }));
}

/** What `datetime-local` holds, by this machine's clock. */
const local = (secs) => new Date(secs * 1000 - new Date(secs * 1000).getTimezoneOffset() * 60000).toISOString().slice(0, 16);

function Choice({ place, window, change }) {
  const names = useLoaded('/v1/capabilities').data;
  const since = useMemo(() => new Date(Date.now() - 7 * DAY * 1000).toISOString(), []);
  const latency = useLoaded('/v1/stats/latency', { from: since, step: 7200 }).data;
  const queues = useLoaded('/v1/queues').data?.queues || [];
  const tasks = [...new Set([...(names?.tasks || []).map((one) => one.name || one), ...(latency?.tasks || []).map((one) => one.task)])].filter((one) => typeof one === 'string').sort();
  const range = place.query.get('range') || '24h';
  const [from, until] = [window?.from ?? Date.now() / 1000 - DAY, window?.to ?? Date.now() / 1000];
  const set = (name) => (event) => change({ [name]: event.target.value });
  const pick = (id) => change({ range: id, from: id === 'custom' ? local(from) : undefined, to: id === 'custom' ? local(until) : undefined });
  return html`<div class="filters" role="group" aria-label="What is shown">
    <label class="field"><span>Task</span><select name="task" onChange=${set('task')}><option value="">all</option>
      ${tasks.map((name) => html`<option key=${name} translate=${false} value=${name} selected=${name === place.query.get('task')}>${name}</option>`)}</select></label>
    <label class="field"><span>Queue</span><select name="queue" onChange=${set('queue')}><option value="">all</option>
      ${queues.map(({ name }) => html`<option key=${name} translate=${false} value=${name} selected=${name === place.query.get('queue')}>${name}</option>`)}</select></label>
    <${Segments} label="Range" choices=${RANGES} chosen=${range} choose=${pick} />
    ${range === 'custom' && html`<label class="field"><span>From</span><input type="datetime-local" name="from" value=${place.query.get('from') || ''} onChange=${set('from')} /></label>
      <label class="field"><span>To</span><input type="datetime-local" name="to" value=${place.query.get('to') || ''} onChange=${set('to')} /></label>`}
    <label class="row"><input type="checkbox" name="before" checked=${place.query.has('before')} onChange=${(event) => change({ before: event.target.checked ? '1' : undefined })} /> With the day before</label>
  </div>`;
}

const rate = (value) => (value < 10 && value % 1 ? value.toFixed(value < 1 ? 2 : 1) : count(Math.round(value)));
const perMinute = (number, step) => (number === undefined ? null : number * (60 / step));

function Throughput({ data, before, compares }) {
  const points = beside(data.points, before).map((point) => ({ at: point.at, accepted: perMinute(point.accepted, data.step), succeeded: perMinute(point.succeeded, data.step),
    failed: perMinute(point.failed, data.step), then: perMinute(point.before?.accepted, before?.step) }));
  const series = [{ key: 'accepted', name: 'accepted' }, { key: 'succeeded', name: 'succeeded' }, { key: 'failed', name: 'failed' }];
  if (compares) series.push({ key: 'then', name: 'accepted the day before' });
  return html`<${Chart} title="Tasks per minute" points=${points} series=${series} unit=${rate} />`;
}

function Latency({ title, which, data, before, compares }) {
  const points = beside(data.points, before).map((point) => ({ at: point.at, mid: point[which].p50, high: point[which].p95, then: point.before?.[which].p50 ?? null }));
  const series = [{ key: 'mid', name: 'p50' }, { key: 'high', name: 'p95' }];
  if (compares) series.push({ key: 'then', name: 'p50 the day before' });
  return html`<${Chart} title=${title} points=${points} series=${series} unit=${seconds} />`;
}

function Week({ filter }) {
  const hour = Math.floor(Date.now() / 3600000);
  const query = useMemo(() => ({ ...filter, from: new Date((hour - 7 * 24 + 1) * 3600000).toISOString(), step: 3600 }), [filter.task, filter.queue, hour]);
  const { data, error } = useLoaded('/v1/stats/latency', query, { everyMs: 60000, same: [filter.task, filter.queue] });
  return html`<section class="card"><h2>Run time by hour, the last 7 days</h2><${Trouble} error=${error} what="statistics of latency" />
    ${data && html`<${Heat} title="Run time by hour, the last 7 days" points=${data.points} valueOf=${(point) => point.run.p50} unit=${seconds} />`}</section>`;
}

export function Charts({ place }) {
  const turn = useTurn(AGAIN_MS);
  const window = useMemo(() => windowOf(place.query, Math.floor(Date.now() / 1000)), [place.query.toString(), turn]);
  const compares = place.query.has('before');
  const filter = { task: place.query.get('task') || undefined, queue: place.query.get('queue') || undefined };
  const now = window && { ...filter, ...asked(window) };
  const then = window && compares && { ...filter, ...asked(window, DAY) };
  // The range moves on with every turn; what was chosen stays.
  const chosen = { same: place.query.toString() };
  const throughput = useLoaded(now && '/v1/stats/throughput', now, chosen);
  const latency = useLoaded(now && '/v1/stats/latency', now, chosen);
  const standings = useLoaded(now && !filter.task && '/v1/stats/queues', now && { ...asked(window), queue: filter.queue }, chosen);
  const before = useLoaded(then && '/v1/stats/throughput', then, chosen);
  const latencyBefore = useLoaded(then && '/v1/stats/latency', then, chosen);
  const change = (more) => go(to('charts', { ...Object.fromEntries(place.query), ...more }));
  return html`<div class="stack">
    <div class="head"><h1>Charts</h1></div>
    <${Choice} place=${place} window=${window} change=${change} />
    ${!window && html`<${Notice} kind="warn">The range must end after it begins.<//>`}
    <${Trouble} error=${throughput.error || latency.error} what="statistics" />
    <div class="columns">
      <section class="card"><h2>Tasks per minute</h2>${throughput.data && html`<${Throughput} data=${throughput.data} before=${before.data} compares=${compares} />`}</section>
      <section class="card"><h2>Run time</h2>${latency.data && html`<${Latency} title="Run time" which="run" data=${latency.data} before=${latencyBefore.data} compares=${compares} />`}</section>
      <section class="card"><h2>Waiting time</h2>${latency.data && html`<${Latency} title="Waiting time" which="wait" data=${latency.data} before=${latencyBefore.data} compares=${compares} />`}</section>
      ${standings.data?.queues.length > 0 && html`<section class="card"><h2>Waiting in queues</h2><${QueueWaits} queues=${standings.data.queues} /></section>
        <section class="card"><h2>Age of the oldest message</h2><${QueueAges} queues=${standings.data.queues} /></section>`}
      <${Week} filter=${filter} />
    </div>
  </div>`;
}
