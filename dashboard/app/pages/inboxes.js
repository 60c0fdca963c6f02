// Databases whose transactions make tasks: whether each answers, and what waits in it.

import { html } from '../view.js';
import { useLoaded } from '../loading.js';
import { count, seconds } from '../words.js';
import { Name, Trouble } from '../parts/basics.js';
import { Empty } from '../parts/icons.js';

const Row = ({ inbox }) => html`<tr><td class="wrap mono"><${Name} text=${inbox.name} /></td>
  <td>${inbox.trouble ? html`<span class="phase bad">does not answer</span> <span class="small quiet" translate=${false}>${inbox.trouble}</span>` : html`<span class="phase good">is drained</span>`}</td>
  <td class="number" data-name="waiting">${count(inbox.waiting)}</td><td class="number" data-name="oldest">${seconds(inbox.oldest_seconds)}</td>
  <td class="number" data-name="looked at every">${seconds(inbox.poll_seconds)}</td></tr>`;

export function Inboxes() {
  const { data, error } = useLoaded('/v1/inboxes', undefined, { everyMs: 5000 });
  const list = data?.inboxes || [];
  return html`<div class="stack">
    <div class="head"><h1>Inboxes</h1></div>
    <${Trouble} error=${error} what="list of inboxes" />
    ${data && list.length === 0 && html`<${Empty} title="No database has an inbox">With an inbox, the transactions of an application's own PostgreSQL make tasks when they commit.<//>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Inboxes"><table class="folds">
      <thead><tr><th>Database</th><th>State</th><th class="number">Waiting</th><th class="number">Oldest</th><th class="number">Looked at every</th></tr></thead>
      <tbody>${list.map((inbox) => html`<${Row} key=${inbox.name} inbox=${inbox} />`)}</tbody></table></div>`}
    <p class="small quiet">Another database gets one by <code>taskgate inbox install</code> and <code>[[inboxes]]</code>.</p>
  </div>`;
}
