// Steps that wait for somebody: what each one asks, a form for the answer, and a way to refuse it.

import { html, useState } from '../view.js';
import { post, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { away } from '../words.js';
import { Json, Name, Notice, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { Field, answerOf, resolve } from '../parts/schema_field.js';
import { attempt, toast } from '../parts/toasts.js';

const ANY = { description: 'Any JSON value', default: true };

function Answer({ wait, onDone }) {
  const [refused, setRefused] = useState(null);
  const schema = wait.schema ? resolve(wait.schema, wait.schema) : ANY;
  const members = Object.entries(schema.properties || {}).map(([name, member]) => [name, resolve(wait.schema, member)]);
  const required = schema.required || [];
  const placed = (name) => refused?.places?.find(({ pointer }) => pointer.split('/')[1] === name)?.detail;
  const answer = async (event) => {
    event.preventDefault();
    try {
      await post(`/v1/waits/${segment(wait.token)}`, answerOf(schema, new FormData(event.target)));
      toast('Answered: the step goes on');
      onDone();
    } catch (error) {
      setRefused(error);
    }
  };
  return html`<form class="stack" onSubmit=${answer}>
    <div class="fields">${members.length > 0
      ? members.map(([name, member]) => html`<${Field} key=${name} scope="${wait.token}." id="body.${name}" member=${name} schema=${member} required=${required.includes(name)} refused=${placed(name)} />`)
      : html`<${Field} scope="${wait.token}." id="body" name="Answer" schema=${schema} required />`}</div>
    ${refused && html`<${Notice} kind="bad" live>${refused.message}${refused.places?.map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}<//>`}
    <div class="row"><button class="main">Answer</button></div>
  </form>`;
}

function Card({ wait, onChange, onRefuse }) {
  return html`<section class="card stack" aria-label=${wait.name}>
    <div class="head"><h2><${Name} text=${wait.name} /></h2><span class="small quiet">waits since <${Time} value=${wait.since} /></span></div>
    <dl class="facts"><dt>Task</dt><dd><${TaskLink} id=${wait.task_id} /></dd>
      <dt>Ends by itself</dt><dd><${Time} value=${wait.expires_at} /> <span class="quiet small">${away(wait.expires_at)}</span></dd></dl>
    ${wait.input !== null && wait.input !== undefined && html`<details open><summary>What the step before returned</summary><${Json} value=${wait.input} name="input" /></details>`}
    <${Answer} wait=${wait} onDone=${onChange} />
    <div class="row"><button type="button" class="danger" aria-label="Refuse… ${wait.name}" onClick=${() => onRefuse(wait)}>Refuse…</button></div>
  </section>`;
}

export function Waits() {
  const { data, error, reload } = useLoaded('/v1/waits', { limit: 100 }, { everyMs: 5000 });
  const [refused, setRefused] = useState(null);
  const list = data?.waits || [];
  const refuse = async () => {
    await attempt(() => remove(`/v1/waits/${segment(refused.token)}`), 'Refused: the step has failed');
    reload();
  };
  return html`<div class="stack">
    <div class="head"><h1>Waiting for people</h1></div>
    <${Trouble} error=${error} what="list of waits" />
    ${data && list.length === 0 && html`<${Empty} kind="good" title="Nothing waits for an answer">A step of a canvas can wait for a person or another program. Such steps stand here, with a form for what they ask.<//>`}
    <div class="columns many">${list.map((wait) => html`<${Card} key=${wait.token} wait=${wait} onChange=${reload} onRefuse=${setRefused} />`)}</div>
    ${data?.next && html`<p class="quiet">There are more; the oldest are shown.</p>`}
    ${refused && html`<${Dialog} title="Refuse this step?" danger actionText="Refuse" action=${refuse} onClose=${() => setRefused(null)}>
      <p><${Name} text=${refused.name} /></p><p>The step fails, and what follows it in its canvas does not run.</p><//>`}
  </div>`;
}
