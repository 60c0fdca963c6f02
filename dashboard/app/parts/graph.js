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

/** Members of a group stand beside each other. */
function places(nodes, layer, groups) {
  const heights = [];
  const place = new Map();
  const nested = [...nodes].sort((a, b) => (groups.get(a.task_id) || '').localeCompare(groups.get(b.task_id) || ''));
  for (const node of nested) {
    const x = layer.get(node.task_id);
    heights[x] = (heights[x] || 0) + 1;
    place.set(node.task_id, { x: x * (WIDTH + GAP_X), row: heights[x] - 1, layer: x });
  }
  const most = Math.max(...heights.filter(Boolean));
  for (const one of place.values()) one.y = (one.row + (most - heights[one.layer]) / 2) * (HEIGHT + GAP_Y) + 4;
  return { place, width: heights.length * (WIDTH + GAP_X) - GAP_X + 8, height: most * (HEIGHT + GAP_Y) + 8 };
}

/** A box around the members of each group that stand in one layer. */
function boxes(place, groups) {
  const found = new Map();
  for (const [id, group] of groups) {
    const at = place.get(id);
    if (!at) continue;
    const key = `${group} ${at.layer}`;
    const box = found.get(key) || { x: at.x, top: at.y, bottom: at.y, count: 0 };
    found.set(key, { x: at.x, top: Math.min(box.top, at.y), bottom: Math.max(box.bottom, at.y), count: box.count + 1 });
  }
  return [...found.values()].filter((box) => box.count > 1);
}

/** An edge that leads over other layers goes around their nodes: below all of them. */
function curve(a, b, bottom) {
  const [x1, y1, x2, y2] = [a.x + WIDTH, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
  if (b.layer - a.layer < 2) return `M${x1} ${y1}C${x1 + 30} ${y1} ${x2 - 30} ${y2} ${x2} ${y2}`;
  return `M${x1} ${y1}C${x1 + 30} ${y1} ${x1 + 10} ${bottom} ${x1 + GAP_X} ${bottom}L${x2 - GAP_X} ${bottom}C${x2 - 10} ${bottom} ${x2 - 30} ${y2} ${x2} ${y2}`;
}

/** `groups`: the group of each task that has one. */
export function Graph({ nodes, edges, here, groups = new Map() }) {
  const shown = nodes.slice(0, MOST);
  const { layer, inside } = layers(shown, edges);
  const { place, width, height: drawn } = places(shown, layer, groups);
  const far = inside.some(([from, to]) => layer.get(to) - layer.get(from) > 1);
  const height = drawn + (far ? 24 : 0);
  return html`<div class="graph" tabindex="0" role="region" aria-label="Canvas">
    <svg width=${width} height=${height} viewBox="-12 -6 ${width + 16} ${height + 12}" role="group" aria-label="${nodes.length} tasks">
      ${boxes(place, groups).map((box, index) => html`<rect key=${index} class="group" x=${box.x - 8} y=${box.top - 7} width=${WIDTH + 16} height=${box.bottom - box.top + HEIGHT + 14} rx="10" />`)}
      ${inside.map(([from, to], index) => html`<path key=${index} d=${curve(place.get(from), place.get(to), drawn + 6)} />`)}
      ${shown.map((node) => {
        const { x, y } = place.get(node.task_id);
        const name = (node.task || 'unknown').replace(/^.*\.(?=.)/, '');
        return html`<a key=${node.task_id} href=${taskPage(node.task_id)}>
          <g class="${tone(node.phase)} ${node.task_id === here ? 'here' : ''}" transform="translate(${x} ${y})">
            <title>${node.task} ${node.task_id}</title>
            <rect width=${WIDTH} height=${HEIGHT} rx="7" />
            <text x="10" y="18" translate=${false}>${name.length > 26 ? `${name.slice(0, 25)}…` : name}</text>
            <text class="sub" x="10" y="35">${node.phase} · ${short(node.task_id)}</text>
          </g></a>`;
      })}
    </svg>
    ${nodes.length > MOST && html`<p class="small quiet">${nodes.length - MOST} more tasks are not drawn.</p>`}
  </div>`;
}
