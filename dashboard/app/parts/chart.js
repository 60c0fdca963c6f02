// Lines over time as SVG, with the same numbers as a table for those who do not see it.

import { html } from '../view.js';
import { at } from '../words.js';

const W = 640;
const H = 190;
const LEFT = 48;
const BOTTOM = 22;

/** The next "round" number above: 1, 2 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((one) => one >= value);
}

function path(points, key, x, y) {
  let pen = 'M';
  let text = '';
  for (const [index, point] of points.entries()) {
    const value = point[key];
    if (value === null || value === undefined) {
      pen = 'M';
    } else {
      text += `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = 'L';
    }
  }
  return text;
}

/** `points: [{at, key: number or null}]`, `series: [{key, name}]` (at most four), `unit`: number → text. */
export function Chart({ title, points, series, unit = String }) {
  const top = ceiling(Math.max(0, ...points.flatMap((point) => series.map(({ key }) => point[key] ?? 0))));
  const x = (index) => LEFT + ((W - LEFT - 6) * index) / Math.max(1, points.length - 1);
  const y = (value) => 8 + (H - BOTTOM - 8) * (1 - value / top);
  const ticks = points.length > 1 ? [0, Math.floor((points.length - 1) / 2), points.length - 1] : [];
  return html`<figure class="plain">
    <div class="legend" aria-hidden="true">${series.map(({ name }, index) => html`<span class="s${index + 1}" key=${name}><i></i>${name}</span>`)}</div>
    <svg class="chart" viewBox="0 0 ${W} ${H}" role="img" aria-label=${title}>
      ${[0, 0.5, 1].map((part) => html`
        <line class="grid" x1=${LEFT} x2=${W} y1=${y(top * part)} y2=${y(top * part)} />
        <text x=${LEFT - 6} y=${y(top * part) + 4} text-anchor="end">${unit(top * part)}</text>`)}
      ${ticks.map((index) => html`<text x=${x(index)} y=${H - 6} text-anchor=${index === 0 ? 'start' : index === points.length - 1 ? 'end' : 'middle'}>${at(points[index].at).slice(0, -3)}</text>`)}
      ${series.map(({ key }, index) => html`<path class="line s${index + 1}" d=${path(points, key, x, y)} />`)}
    </svg>
    <details class="small"><summary>As a table</summary><div class="scroll" tabindex="0" role="region" aria-label="${title} as a table"><table>
      <thead><tr><th>Time</th>${series.map(({ name }) => html`<th class="number">${name}</th>`)}</tr></thead>
      <tbody>${points.slice(-30).reverse().map((point) => html`<tr key=${point.at}><td>${at(point.at)}</td>
        ${series.map(({ key }) => html`<td class="number">${point[key] === null || point[key] === undefined ? '–' : unit(point[key])}</td>`)}</tr>`)}</tbody>
    </table></div></details>
  </figure>`;
}

/** A small row of columns: the trend of a count. */
export function Spark({ values, name }) {
  const top = Math.max(1, ...values);
  const width = 100 / Math.max(1, values.length);
  return html`<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${name}>
    ${values.map((value, index) => html`<rect key=${index} x=${index * width} width=${width * 0.8} y=${24 - (24 * value) / top} height=${(24 * value) / top} />`)}
  </svg>`;
}
