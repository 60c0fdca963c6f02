// Keys that limit how many tasks are under way or start: how each stands, and what is changed by hand.

import { html, useState } from '../view.js';
import { may, put, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { count } from '../words.js';
import { say } from '../languages/speech.js';
import { Name, Notice, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { attempt } from '../parts/toasts.js';

function Change({ limit, onClose, onChange }) {
  const [refused, setRefused] = useState(null);
  const [key, setKey] = useState(limit?.key || '');
  const [max, setMax] = useState(limit?.max ?? '');
  const [rate, setRate] = useState(limit?.rate ?? '');
  const [paused, setPaused] = useState(limit?.paused || false);
  const save = async () => {
    try {
      await put(`/v1/limits/${segment(key.trim())}`, { paused, ...(max !== '' && { max: Number(max) }), ...(rate.trim() && { rate: rate.trim() }) });
      onChange();
      return undefined;
    } catch (error) {
      setRefused(error);
      return 'stay';
    }
  };
  return html`<${Dialog} title=${limit ? say('Change {name}', { name: limit.key }) : 'New limit'} action=${save} actionText="Save" focus="field" nothing=${!key.trim()} onClose=${onClose}>
    <p>It stands above what submissions and the catalog say of the key, until it is reset. What is under way is not touched.</p>
    ${!limit && html`<label class="field"><span>Key</span><input value=${key} required maxlength="255" onInput=${(event) => setKey(event.target.value)} /></label>`}
    <label class="field"><span>Tasks at the same time (empty: as its tasks say)</span><input type="number" min="1" max="1000000" value=${max} onInput=${(event) => setMax(event.target.value)} /></label>
    <label class="field"><span>Starts in a time, as 10/s, 1/m or 5/d (empty: as its tasks say)</span><input value=${rate} onInput=${(event) => setRate(event.target.value)} /></label>
    <label class="row"><input type="checkbox" checked=${paused} onChange=${(event) => setPaused(event.target.checked)} /> Paused: nothing of the key starts</label>
    ${refused && html`<${Notice} kind="bad" live>${refused.message}${refused.places?.map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}<//>`}
  <//>`;
}

function Row({ limit, onChange, onEdit }) {
  const reset = async () => {
    await attempt(() => remove(`/v1/limits/${segment(limit.key)}`), 'Its tasks say again what holds');
    onChange();
  };
  return html`<tr><td class="wrap"><${Name} text=${limit.key} /> ${limit.paused && html`<span class="phase warn">paused</span>`}</td>
    <td class="number" data-name="at once">${count(limit.max)}</td><td class="number" data-name="rate">${limit.rate || '–'}</td>
    <td class="number" data-name="under way">${count(limit.under_way)}</td><td class="number" data-name="waiting">${count(limit.waiting)}</td>
    <td class="nowrap" data-name="next start"><${Time} value=${limit.next_at} /></td><td class="nowrap" data-name="changed"><${Time} value=${limit.changed_at} /></td>
    <td class="actions">${may('control') && html`<div class="row"><button type="button" aria-label="Change… ${limit.key}" onClick=${() => onEdit(limit)}>Change…</button>
      ${limit.changed_at && html`<button type="button" aria-label="Reset ${limit.key}" onClick=${reset}>Reset</button>`}</div>`}</td></tr>`;
}

export function Limits() {
  const [cursors, setCursors] = useState([undefined]);
  const { data, error, reload } = useLoaded('/v1/limits', { limit: 100, cursor: cursors.at(-1) }, { everyMs: 5000, same: 'rows' });
  const [edited, setEdited] = useState(undefined);
  const list = data?.limits || [];
  return html`<div class="stack">
    <div class="head"><h1>Limits</h1>${may('control') && html`<button type="button" class="main" onClick=${() => setEdited(null)}>New…</button>`}</div>
    <${Trouble} error=${error} what="list of limits" />
    ${data && list.length === 0 && html`<${Empty} title="No key is limited now">A task may name keys of which only so many tasks run at the same time or start in a time. Keys that are in use are listed here.<//>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Limits"><table class="folds">
      <thead><tr><th>Key</th><th class="number">At once</th><th class="number">Rate</th><th class="number">Under way</th><th class="number">Waiting</th><th>Next start</th><th>Changed by hand</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${list.map((limit) => html`<${Row} key=${limit.key} limit=${limit} onChange=${reload} onEdit=${setEdited} />`)}</tbody></table></div>`}
    <div class="row">${cursors.length > 1 && html`<button type="button" onClick=${() => setCursors([undefined])}>First page</button>`}
      ${data?.next && html`<button type="button" onClick=${() => setCursors([...cursors, data.next])}>Next page</button>`}</div>
    ${edited !== undefined && html`<${Change} limit=${edited} onChange=${reload} onClose=${() => setEdited(undefined)} />`}
  </div>`;
}
