// Submitting by form: the catalog's endpoints with fields made from their schemas, or any task by name.

import { html, useMemo, useState } from '../view.js';
import { call } from '../api.js';
import { useLoaded } from '../loading.js';
import { go, taskPage, to } from '../place.js';
import { Notice, Trouble } from '../parts/basics.js';
import { Field, resolve, valuesOf } from '../parts/schema_field.js';

const ANY = 'POST /v1/tasks';

/** The catalog's operations as forms: path parameters and the members of the body. */
export function forms(document) {
  const list = [];
  for (const [path, operations] of Object.entries(document.paths || {})) {
    for (const [method, operation] of Object.entries(operations)) {
      if (!operation.tags?.includes('catalog')) continue;
      const body = resolve(document, operation.requestBody?.content?.['application/json']?.schema);
      list.push({
        id: `${method.toUpperCase()} ${path}`, path, method: method.toUpperCase(), name: operation.summary || path, text: operation.description,
        parameters: (operation.parameters || []).filter((one) => one.in === 'path').map((one) => ({ ...one, schema: resolve(document, one.schema) })),
        body, example: operation.requestBody?.content?.['application/json']?.example,
      });
    }
  }
  return list.sort((a, b) => a.id.localeCompare(b.id));
}

const ANY_SCHEMA = {
  type: 'object', required: ['task'],
  properties: {
    task: { type: 'string', description: 'Its registered name' },
    args: { type: 'array', description: 'Positional arguments', default: [] }, kwargs: { type: 'object', description: 'Arguments by name', default: {} },
    queue: { type: 'string', description: 'Empty: as the routes say' }, priority: { type: 'integer', minimum: 0, maximum: 9, description: '0 is served first' },
    countdown: { type: 'number', minimum: 0, description: 'Seconds to wait before it may run' }, eta: { type: 'string', description: 'RFC 3339 time before which it does not run' },
    expires: { type: 'number', minimum: 0, description: 'Seconds after which it does not start any more' }, labels: { type: 'object', description: 'Texts by name' },
  },
};

function Form({ form }) {
  const [refused, setRefused] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    setBusy(true);
    try {
      const path = form.parameters.reduce((text, { name }) => text.replace(`{${name}}`, encodeURIComponent(data.get(`path.${name}`))), form.path);
      const body = form.body ? valuesOf(form.body, data) : undefined;
      const done = await call(form.method, path, { body, more: { Accept: 'application/json' } });
      go(done.task_id ? taskPage(done.task_id) : to('tasks', { group_id: done.group_id }));
    } catch (error) {
      setRefused(error);
    } finally {
      setBusy(false);
    }
  };
  const members = Object.entries(form.body?.properties || {});
  const required = form.body?.required || [];
  const placed = (name) => refused?.places?.find(({ pointer }) => pointer.replace(/^[#/]+/, '').split('/')[0] === name)?.detail;
  return html`<form class="card stack" onSubmit=${submit} aria-label=${form.name}>
    <h2>${form.name}</h2>
    ${form.text && html`<p class="quiet">${form.text.split('`').map((part, index) => (index % 2 ? html`<code>${part}</code>` : part))}</p>`}
    <div class="fields">
      ${form.parameters.map((one) => html`<${Field} key=${one.name} id="path.${one.name}" member=${one.name} schema=${{ ...one.schema, description: one.description }} required refused=${placed(one.name)} />`)}
      ${members.map(([name, schema]) => html`<${Field} key=${name} id="body.${name}" member=${name} schema=${schema} required=${required.includes(name)} refused=${placed(name)} />`)}
      ${form.body && members.length === 0 && html`<${Field} id="body" name="body" schema=${{ ...form.body, default: form.example ?? {} }} />`}
    </div>
    ${refused && html`<${Notice} kind="bad" live>${refused.message}${(refused.places || []).map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}<//>`}
    <div class="row"><button class="main" disabled=${busy}>Submit</button><code class="quiet">${form.id}</code></div>
  </form>`;
}

export function Submit({ place }) {
  const { data, error } = useLoaded('/openapi.json');
  const known = useMemo(() => (data ? [...forms(data), { id: ANY, path: '/v1/tasks', method: 'POST', name: 'Any task by name', parameters: [], body: ANY_SCHEMA }] : []), [data]);
  const chosen = known.find(({ id }) => id === place.query.get('form')) || known[0];
  return html`<div class="stack narrow">
    <div class="head"><h1>Submit</h1></div>
    <${Trouble} error=${error} what="contract" />
    ${chosen && html`<label class="field"><span>What</span><select id="form" value=${chosen.id} onChange=${(event) => go(to('submit', { form: event.target.value }))}>
      ${known.map(({ id, name }) => html`<option key=${id} value=${id}>${name} (${id})</option>`)}</select></label>
      <${Form} key=${chosen.id} form=${chosen} />`}
  </div>`;
}
