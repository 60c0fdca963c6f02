// How the fleet is doing: figures of now, lines of the last hours, queues with their time to drain.

import { html, useMemo, useState } from '../view.js';
import { useLoaded } from '../loading.js';
import { count, percent, seconds } from '../words.js';
import { say, translate } from '../languages/speech.js';
import { to } from '../place.js';
import { Trouble } from '../parts/basics.js';
import { Chart, Spark } from '../parts/chart.js';
import { Segments } from '../parts/segments.js';

const AGAIN_MS = 5000;
const RANGES = [['1h', '1 hour', 3600, 60], ['6h', '6 hours', 21600, 300], ['24h', '24 hours', 86400, 900], ['7d', '7 days', 604800, 7200]];

const Figure = ({ name, value, note, href, kind = '', trend }) => html`<div class="figure ${kind}"><dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt>
  <dd>${value} ${note && html`<small>${note}</small>`}${trend && html`<${Spark} values=${trend} name="${name} of the last hour" kind=${kind === 'bad' ? '' : 's1'} />`}</dd></div>`;

const sum = (list, key) => (list || []).reduce((total, one) => total + (one[key] || 0), 0);

/** Of the newest minutes: what came in, what ended badly. */
function recent(points, minutes) {
  const last = (points || []).slice(-minutes);
  const ended = sum(last, 'succeeded') + sum(last, 'failed');
  return { accepted: sum(last, 'accepted') / (60 * Math.max(1, last.length)), failures: ended ? sum(last, 'failed') / ended : null,
    ended: ended / (60 * Math.max(1, last.length)) };
}

/** At the pace of the last minutes; nobody can say it of a queue that nobody serves. */
function Drain({ queue, window }) {
  const asked = queue.waiting > 0 && queue.consumers > 0 && !queue.paused;
  const { data } = useLoaded(asked ? '/v1/stats/throughput' : null, { ...window, queue: queue.name }, { same: queue.name });
  if (queue.waiting > 0 && !asked) return translate('not served');
  const rate = data && recent(data.points, 5).ended;
  return asked && rate > 0 ? `≈ ${seconds(queue.waiting / rate)}` : '–';
}

function Queues({ queues, window }) {
  const busy = [...queues].sort((a, b) => b.waiting + b.held - a.waiting - a.held).slice(0, 10);
  return html`<section class="card"><h2><a href="#/queues">Queues</a></h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Queues"><table class="folds">
      <thead><tr><th>Queue</th><th class="number">Waiting</th><th class="number">Held</th><th class="number">With workers</th><th class="number">Oldest</th><th class="number">Drained in</th></tr></thead>
      <tbody>${busy.map((queue) => html`<tr key=${queue.name}><td><a translate=${false} href=${to(`queues/${encodeURIComponent(queue.name)}`)}>${queue.name}</a> ${queue.paused && html`<span class="phase warn">paused</span>`}</td>
        <td class="number" data-name="waiting">${count(queue.waiting)}</td><td class="number" data-name="held">${count(queue.held)}</td><td class="number" data-name="with workers">${count(queue.reserved)}</td>
        <td class="number" data-name="oldest">${seconds(queue.oldest_seconds)}</td>
        <td class="number" data-name="drained in"><${Drain} queue=${queue} window=${window} /></td></tr>`)}</tbody>
    </table></div></section>`;
}

export function Overview() {
  const [range, setRange] = useState('1h');
  const [, , span, step] = RANGES.find(([id]) => id === range);
  const turn = Math.floor(Date.now() / 60000);
  const window = useMemo(() => ({ from: new Date(Date.now() - span * 1000).toISOString(), step }), [range, turn]);
  const now = useMemo(() => ({ from: new Date(Date.now() - 5 * 60000).toISOString(), step: 60 }), [turn]);
  const throughput = useLoaded('/v1/stats/throughput', window, { everyMs: AGAIN_MS * 2, same: range });
  const latency = useLoaded('/v1/stats/latency', window, { everyMs: AGAIN_MS * 2, same: range });
  const lately = useLoaded('/v1/stats/throughput', now, { everyMs: AGAIN_MS, same: 'now' });
  const queues = useLoaded('/v1/queues', undefined, { everyMs: AGAIN_MS });
  const workers = useLoaded('/v1/workers', undefined, { everyMs: AGAIN_MS });
  const incidents = useLoaded('/v1/incidents', undefined, { everyMs: AGAIN_MS * 4 });
  const ready = useLoaded('/readyz', undefined, { everyMs: AGAIN_MS });
  const listed = queues.data?.queues;
  const rates = recent(lately.data?.points, 5);
  const oldest = listed && Math.max(-1, ...listed.map((queue) => queue.oldest_seconds ?? -1));
  const online = workers.data?.workers.filter((worker) => worker.status === 'online');
  const open = incidents.data?.incidents?.length;
  return html`<div class="stack">
    <div class="head"><h1>Overview</h1><span class="sub small" role="status">${ready.data
      ? say('ledger {ledger}, Redis {redis}', ready.data) : ready.error ? 'not ready' : ''}</span></div>
    <${Trouble} error=${ready.error} what="readiness" />
    <dl class="figures">
      <${Figure} name="Accepted" value=${lately.data ? rates.accepted.toFixed(rates.accepted < 10 ? 2 : 0) : '–'} note="/s" href=${to('tasks')} />
      <${Figure} name="Running" value=${count(online && sum(online, 'active'))} href=${to('tasks', { phase: 'received,running,retrying' })} />
      <${Figure} name="Waiting" value=${count(listed && sum(listed, 'waiting') + sum(listed, 'held'))} href=${to('tasks', { phase: 'accepted,held,waiting,queued' })} />
      <${Figure} name="Oldest wait" value=${oldest >= 0 ? seconds(oldest) : '–'} />
      <${Figure} name="Failures, 5 min" value=${percent(rates.failures)} href="#/errors" kind=${rates.failures > 0.05 ? 'bad' : ''} />
      <${Figure} name="Workers online" value=${count(online?.length)} href="#/workers" kind=${online?.length === 0 ? 'bad' : ''} />
      <${Figure} name="Incidents" value=${count(open)} href="#/incidents" kind=${open > 0 ? 'warn' : ''} />
    </dl>
    <div class="head"><h2>Over time</h2><${Segments} label="Range" choices=${RANGES} chosen=${range} choose=${setRange} /></div>
    <div class="columns">
      <section class="card"><h2>Tasks per minute</h2><${Trouble} error=${throughput.error} what="statistics of throughput" />
        ${throughput.data && html`<${Chart} title="Tasks per minute" points=${perMinute(throughput.data)} unit=${(value) => (value < 10 && value % 1 ? value.toFixed(1) : count(Math.round(value)))}
          series=${[{ key: 'accepted', name: 'accepted' }, { key: 'succeeded', name: 'succeeded' }, { key: 'failed', name: 'failed' }, { key: 'retried', name: 'retried' }]} />`}</section>
      <section class="card"><h2>Waiting and running, by percentile</h2><${Trouble} error=${latency.error} what="statistics of latency" />
        ${latency.data && html`<${Chart} title="Seconds waited and run" points=${latency.data.points.map((point) => ({
          at: point.at, waitMid: point.wait?.p50, waitHigh: point.wait?.p95, runMid: point.run?.p50, runHigh: point.run?.p95 }))} unit=${seconds}
          series=${[{ key: 'waitMid', name: 'wait p50' }, { key: 'runMid', name: 'run p50' }, { key: 'waitHigh', name: 'wait p95' }, { key: 'runHigh', name: 'run p95' }]} />`}</section>
    </div>
    ${listed ? html`<${Queues} queues=${listed} window=${now} />` : html`<${Trouble} error=${queues.error} what="list of queues" />`}
  </div>`;
}

const perMinute = ({ points, step }) => points.map((point) => {
  const scaled = { at: point.at };
  for (const key of ['accepted', 'succeeded', 'failed', 'retried']) scaled[key] = (point[key] || 0) * (60 / step);
  return scaled;
});
