// A canvas as layers from left to right: a task stands right of everything that it follows.

import { html } from '../view.js';
import { short, tone } from '../words.js';
import { taskPage } from '../place.js';

const WIDTH = 208;
const HEIGHT = 44;
const GAP_X = 60;
const GAP_Y = 16;
/** More would neither fit nor be read. */
const MOST = 300;

/** Each node's layer: the longest way to it. A cycle (which a canvas cannot have) ends at the number of nodes. */
export function layers(nodes, edges) {
  const layer = new Map(nodes.map((node) => [node.task_id, 0]));
  const inside = edges.filter(([from, to]) => layer.has(from) && layer.has(to));
  for (let pass = 0, moved = true; moved && pass < nodes.length; pass += 1) {
    moved = false;
    for (const [from, to] of inside) {
      if (layer.get(to) < layer.get(from) + 1) {
        layer.set(to, layer.get(from) + 1);
        moved = true;
      }
    }
  }
  return { layer, inside };
}

function places(nodes, layer) {
  const heights = [];
  const place = new Map();
  for (const node of nodes) {
    const x = layer.get(node.task_id);
    heights[x] = (heights[x] || 0) + 1;
    place.set(node.task_id, { x: x * (WIDTH + GAP_X), row: heights[x] - 1, layer: x });
  }
  const most = Math.max(...heights.filter(Boolean));
  for (const one of place.values()) one.y = (one.row + (most - heights[one.layer]) / 2) * (HEIGHT + GAP_Y) + 4;
  return { place, width: heights.length * (WIDTH + GAP_X) - GAP_X + 8, height: most * (HEIGHT + GAP_Y) + 8 };
}

export function Graph({ nodes, edges, here }) {
  const shown = nodes.slice(0, MOST);
  const { layer, inside } = layers(shown, edges);
  const { place, width, height } = places(shown, layer);
  const middle = (id) => place.get(id).y + HEIGHT / 2;
  return html`<div class="graph" tabindex="0" role="region" aria-label="Canvas">
    <svg width=${width} height=${height} viewBox="-4 0 ${width} ${height}" role="group" aria-label="${nodes.length} tasks">
      ${inside.map(([from, to], index) => {
        const [x1, x2] = [place.get(from).x + WIDTH, place.get(to).x];
        return html`<path key=${index} d="M${x1} ${middle(from)}C${x1 + 30} ${middle(from)} ${x2 - 30} ${middle(to)} ${x2} ${middle(to)}" />`;
      })}
      ${shown.map((node) => {
        const { x, y } = place.get(node.task_id);
        const name = (node.task || 'unknown').replace(/^.*\.(?=.)/, '');
        return html`<a key=${node.task_id} href=${taskPage(node.task_id)}>
          <g class="${tone(node.phase)} ${node.task_id === here ? 'here' : ''}" transform="translate(${x} ${y})">
            <title>${node.task} ${node.task_id}</title>
            <rect width=${WIDTH} height=${HEIGHT} rx="7" />
            <text x="10" y="18">${name.length > 26 ? `${name.slice(0, 25)}…` : name}</text>
            <text class="sub" x="10" y="35">${node.phase} · ${short(node.task_id)}</text>
          </g></a>`;
      })}
    </svg>
    ${nodes.length > MOST && html`<p class="small quiet">${nodes.length - MOST} more tasks are not drawn.</p>`}
  </div>`;
}
