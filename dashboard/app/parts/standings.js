// How queues and workers stood over time: what waited and for how long, busy slots, memory.

import { html, useMemo, useState } from '../view.js';
import { useLoaded, useTurn } from '../loading.js';
import { bytes, count, seconds } from '../words.js';
import { Trouble } from './basics.js';
import { Chart } from './chart.js';
import { Segments } from './segments.js';

const HOUR = 3600;
const RANGES = [['1h', '1 hour', HOUR], ['24h', '24 hours', 24 * HOUR], ['7d', '7 days', 7 * 24 * HOUR]];
const POINTS = 150;
const AGAIN_MS = 30000;
/** A chart has at most four lines. */
const LINES = 4;

const some = (value) => (value > 0 && value < 10 && value % 1 ? value.toFixed(1) : count(Math.round(value)));

/** The times of a range until now, asked for anew at each turn. */
function useRange(chosen) {
  const turn = useTurn(AGAIN_MS);
  return useMemo(() => {
    const [, , span] = RANGES.find(([id]) => id === chosen) || RANGES[0];
    const step = [60, 300, 900, HOUR, 2 * HOUR].find((one) => span / one <= POINTS);
    return { from: new Date(Date.now() - span * 1000).toISOString(), step };
  }, [chosen, turn]);
}

/** One line for each queue, named as it is. */
function lines(queues, valueOf) {
  const shown = queues.slice(0, LINES);
  const points = shown[0].points.map(({ at }, index) => ({ at, ...Object.fromEntries(shown.map(({ points: own }, line) => [`q${line}`, valueOf(own[index])])) }));
  return { points, series: shown.map(({ queue }, line) => ({ key: `q${line}`, name: queue, own: true })) };
}

/** `queues` as `/v1/stats/queues` has them, at least one. */
export const QueueWaits = ({ queues }) => html`<${Chart} title="Waiting in queues" ...${lines(queues, ({ waiting }) => waiting)} unit=${some} />`;
export const QueueAges = ({ queues }) => html`<${Chart} title="Age of the oldest message" ...${lines(queues, (point) => point.oldest_seconds)} unit=${seconds} />`;

export function QueueHistory({ queue }) {
  const [range, choose] = useState('1h');
  const { data, error } = useLoaded('/v1/stats/queues', { queue, ...useRange(range) }, { same: [queue, range] });
  return html`<section class="card stack"><div class="head"><h2>Over time</h2><${Segments} label="Range" choices=${RANGES} chosen=${range} choose=${choose} /></div>
    <${Trouble} error=${error} what="history of queues" />
    ${data?.queues.length > 0 && html`<div class="columns"><div><h3>Waiting</h3><${QueueWaits} queues=${data.queues} /></div>
      <div><h3>Age of the oldest message</h3><${QueueAges} queues=${data.queues} /></div></div>`}
  </section>`;
}

const SLOTS = [{ key: 'active', name: 'busy' }, { key: 'slots', name: 'slots' }];
const MEMORY = [{ key: 'memory_bytes', name: 'memory' }];

export function WorkerHistory({ hostname }) {
  const [range, choose] = useState('1h');
  const { data, error } = useLoaded('/v1/stats/workers', { worker: hostname, ...useRange(range) }, { same: [hostname, range] });
  const points = data?.workers[0]?.points;
  const tells = points?.some((point) => point.memory_bytes !== null);
  return html`<div class="stack"><div class="row"><${Segments} label="Range" choices=${RANGES} chosen=${range} choose=${choose} /></div>
    <${Trouble} error=${error} what="history of workers" />
    ${data && !points && html`<p class="quiet">Nobody has looked at it in this time.</p>`}
    ${points && html`<h3>Slots</h3><${Chart} title="Slots" points=${points} series=${SLOTS} unit=${some} />`}
    ${tells && html`<h3>Memory</h3><${Chart} title="Memory" points=${points} series=${MEMORY} unit=${bytes} />`}
  </div>`;
}
