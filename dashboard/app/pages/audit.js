// Who did what, from where, with which verdict.

import { html, useState } from '../view.js';
import { useLoaded } from '../loading.js';
import { taskPage } from '../place.js';
import { Time, Trouble } from '../parts/basics.js';
import { Empty } from '../parts/icons.js';

const GOOD = new Set(['done', 'prevented', 'accepted', 'counted', 'signalled']);

/** A path with the id of a task leads to the task. */
function Target({ text }) {
  const id = /^\/v1\/(?:tasks|dead-letters)\/([0-9a-f-]{36})(?:\/|$)/.exec(text)?.[1];
  return id ? html`<a class="mono" translate=${false} href=${taskPage(id)}>${text}</a>` : html`<span class="mono" translate=${false}>${text}</span>`;
}

const Row = ({ row }) => html`<tr>
  <td class="nowrap"><${Time} value=${row.at} /></td>
  <td class="wrap" translate=${false}>${row.who}</td>
  <td class="nowrap">${row.what.replaceAll('_', ' ')}</td>
  <td class="wrap small"><${Target} text=${row.target} /></td>
  <td><span class="phase ${row.verdict === null ? '' : GOOD.has(row.verdict) ? 'good' : 'warn'}">${row.verdict ?? 'under way'}</span>
    ${row.detail && html` <span class="small quiet wrap" translate=${false}>${row.detail}</span>`}</td>
  <td class="nowrap" data-name="from">${row.from || '–'}</td></tr>`;

export function Audit() {
  const [cursors, setCursors] = useState([undefined]);
  const { data, error } = useLoaded('/v1/audit', { limit: 100, cursor: cursors.at(-1) }, { everyMs: cursors.length === 1 ? 5000 : 0, same: 'rows' });
  return html`<div class="stack">
    <div class="head"><h1>Audit</h1></div>
    <${Trouble} error=${error} what="audit" />
    ${data && data.audit.length === 0 && html`<${Empty} title="Nobody has controlled anything yet">Every revoke, retry, pause and change is written here, with who did it and what came of it.<//>`}
    ${data && data.audit.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Audit"><table class="folds">
      <thead><tr><th>When</th><th>Who</th><th>What</th><th>On what</th><th>Verdict</th><th>From</th></tr></thead>
      <tbody>${data.audit.map((row) => html`<${Row} key=${row.id} row=${row} />`)}</tbody></table></div>`}
    <div class="row">
      ${cursors.length > 1 && html`<button type="button" onClick=${() => setCursors(cursors.slice(0, -1))}>Newer ones</button>`}
      ${data?.next && html`<button type="button" onClick=${() => setCursors([...cursors, data.next])}>Older ones</button>`}</div>
    <p class="small quiet">The rows are chained by hashes. <code>taskgate audit verify</code> says whether one was changed.</p>
  </div>`;
}
