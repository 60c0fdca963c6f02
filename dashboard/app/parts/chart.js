// Lines over time as SVG, with the values under the pointer, and the same numbers as a table for those who do not see them.

import { html, useState } from '../view.js';
import { at } from '../words.js';

/** A phone gets fewer units, so that its letters are not smaller. */
const small = matchMedia('(max-width: 760px)');
const WIDE = 640;
const NARROW = 360;
const H = 200;
const LEFT = 54;
const TOP = 8;
const BOTTOM = 20;
/** Of the table. */
const MOST_ROWS = 300;

/** The next "round" number above: 1, 2 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((one) => one >= value);
}

/** A point without neighbours is a dot: the round end of a line that has no length. */
function path(points, key, x, y) {
  let pen = 'M';
  let text = '';
  for (const [index, point] of points.entries()) {
    const value = point[key];
    if (value === null || value === undefined) {
      pen = 'M';
    } else {
      const place = `${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      text += pen === 'M' ? `M${place}L${place}` : `L${place}`;
      pen = 'L';
    }
  }
  return text;
}

const shortTime = (text) => at(text).replace(/:\d\d$/, '');

function Reading({ point, series, unit, part }) {
  const side = part > 0.6 ? { right: `${(1 - part) * 100 + 2}%` } : { left: `${part * 100 + 2}%` };
  return html`<div class="reading" style=${side} aria-hidden="true"><b>${shortTime(point.at)}</b>
    ${series.map(({ key, name, own }) => html`<span key=${key} translate=${!own}>${name}</span><span>${point[key] === null || point[key] === undefined ? '–' : unit(point[key])}</span>`)}</div>`;
}

const Table = ({ title, points, series, unit }) => html`<details class="small"><summary>As a table</summary>
  <div class="scroll" tabindex="0" role="region" aria-label="${title} as a table"><table>
    <thead><tr><th>Time</th>${series.map(({ name, own }) => html`<th class="number" translate=${!own}>${name}</th>`)}</tr></thead>
    <tbody>${points.slice(-MOST_ROWS).reverse().map((point) => html`<tr key=${point.at}><td>${at(point.at)}</td>
      ${series.map(({ key }) => html`<td class="number">${point[key] === null || point[key] === undefined ? '–' : unit(point[key])}</td>`)}</tr>`)}</tbody>
  </table></div></details>`;

/** `points: [{at, key: number or null}]`, `series: [{key, name, own}]` (at most four; `own`: the name is somebody's, and stays as it is), `unit`: number → text. */
export function Chart({ title, points, series, unit = String }) {
  const [here, setHere] = useState(null);
  const W = small.matches ? NARROW : WIDE;
  const top = ceiling(Math.max(0, ...points.flatMap((point) => series.map(({ key }) => point[key] ?? 0))));
  const last = Math.max(1, points.length - 1);
  const x = (index) => LEFT + ((W - LEFT - 6) * index) / last;
  const y = (value) => TOP + (H - BOTTOM - TOP) * (1 - value / top);
  // A time with its day is wide: on a phone there is room for three.
  const parts = small.matches ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
  const ticks = points.length > 1 ? parts.map((part) => Math.round(last * part)) : [];
  const look = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * W;
    const index = Math.round(((place - LEFT) / (W - LEFT - 6)) * last);
    setHere(index >= 0 && index < points.length ? index : null);
  };
  const first = path(points, series[0].key, x, y);
  const point = here !== null && points[here];
  return html`<figure class="plain">
    <div class="legend" aria-hidden="true">${series.map(({ name, own }, index) => html`<span class="s${index + 1}" key=${name} translate=${!own}><i></i>${name}</span>`)}</div>
    <svg class="chart" viewBox="0 0 ${W} ${H}" role="img" aria-label=${title} onPointerMove=${look} onPointerLeave=${() => setHere(null)}>
      ${[0, 0.5, 1].map((part) => html`
        <line class="grid" x1=${LEFT} x2=${W} y1=${y(top * part)} y2=${y(top * part)} />
        <text x=${LEFT - 7} y=${y(top * part) + 4} text-anchor="end">${unit(top * part)}</text>`)}
      ${ticks.map((index, place) => html`<text x=${x(index)} y=${H - 4} text-anchor=${place === 0 ? 'start' : place === parts.length - 1 ? 'end' : 'middle'}>${shortTime(points[index].at)}</text>`)}
      ${points.every((one) => typeof one[series[0].key] === 'number') && html`<path class="area s1" d="${first}L${x(last)} ${y(0)}L${LEFT} ${y(0)}Z" />`}
      ${point && html`<line class="cursor" x1=${x(here)} x2=${x(here)} y1=${TOP} y2=${H - BOTTOM} />`}
      ${series.map(({ key }, index) => html`<path class="line s${index + 1}" d=${path(points, key, x, y)} />`)}
      ${point && series.map(({ key }, index) => typeof point[key] === 'number' && html`<circle class="s${index + 1}" cx=${x(here)} cy=${y(point[key])} r="3" />`)}
    </svg>
    ${point && html`<${Reading} point=${point} series=${series} unit=${unit} part=${x(here) / W} />`}
    <${Table} title=${title} points=${points} series=${series} unit=${unit} />
  </figure>`;
}

/** A small row of columns: the trend of a count. */
export function Spark({ values, name, kind = '' }) {
  const top = Math.max(1, ...values);
  const width = 100 / Math.max(1, values.length);
  return html`<svg class="spark ${kind}" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${name}>
    ${values.map((value, index) => html`<rect key=${index} x=${index * width} width=${width * 0.8} y=${24 - (24 * value) / top} height=${(24 * value) / top} />`)}
  </svg>`;
}
