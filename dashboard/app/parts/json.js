// JSON as people read it: names and values in colours, parts that fold, and a button that copies all of it.

import { html } from '../view.js';
import { json } from '../words.js';
import { Icon } from './icons.js';
import { toast } from './toasts.js';

/** Deeper, and longer, parts are folded at first. */
const OPEN_DEPTH = 3;
const OPEN_ENTRIES = 100;
/** More entries of one part than this are not drawn; the copy has them. */
const MOST = 1000;

const kindOf = (value) => (value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value);

function Scalar({ value }) {
  return html`<span class="j-${kindOf(value)}">${JSON.stringify(value)}</span>`;
}

/** `member`: its name in the value that it is a part of. (A `name` would be translated.) */
function Part({ member: name, value, depth, last }) {
  const comma = last ? '' : ',';
  const label = name === null ? '' : html`<span class="j-name">${JSON.stringify(name)}</span>: `;
  const kind = kindOf(value);
  if (kind !== 'list' && kind !== 'object') return html`<div class="j-line">${label}<${Scalar} value=${value} />${comma}</div>`;
  const entries = Object.entries(value);
  const [open, close] = kind === 'list' ? ['[', ']'] : ['{', '}'];
  if (entries.length === 0) return html`<div class="j-line">${label}${open}${close}${comma}</div>`;
  return html`<details class="j-part" open=${depth < OPEN_DEPTH && entries.length <= OPEN_ENTRIES}>
    <summary>${label}${open}<span class="j-folded"> ${entries.length} ${close}${comma}</span></summary>
    <div class="j-inside">${entries.slice(0, MOST).map(([key, one], index) => html`<${Part} key=${key} member=${kind === 'list' ? null : key} value=${one} depth=${depth + 1} last=${index === entries.length - 1} />`)}
      ${entries.length > MOST && html`<div class="j-line quiet">… ${entries.length - MOST}</div>`}</div>
    <div class="j-line j-close">${close}${comma}</div></details>`;
}

async function copyAll(value) {
  try {
    await navigator.clipboard.writeText(json(value));
    toast('Copied');
  } catch {
    toast('This browser does not let a page copy here', 'warn');
  }
}

export const Json = ({ value, name }) => html`<div class="json-box">
  <button type="button" class="icon" aria-label="Copy as JSON" onClick=${() => copyAll(value)}><${Icon} of="copy" /></button>
  <div class="json" tabindex="0" role="region" aria-label=${name || 'JSON'}><${Part} member=${null} value=${value} depth=${0} last /></div></div>`;
