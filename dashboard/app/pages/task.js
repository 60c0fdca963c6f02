// One task: why it is where it is, what happened when, what went in and what came out, and what can be done.

import { html, useEffect, useState } from '../view.js';
import { get, segment } from '../api.js';
import { follow } from '../stream.js';
import { useLoaded } from '../loading.js';
import { FINAL, between, count, localTimes, seconds } from '../words.js';
import { go, taskPage, to } from '../place.js';
import { Bar, Json, Labels, Name, Notice, Phase, TaskLink, Time, Trouble, progressOf } from '../parts/basics.js';
import { Timeline } from '../parts/timeline.js';
import { Gantt } from '../parts/gantt.js';
import { Graph } from '../parts/graph.js';
import { Tabs } from '../parts/tabs.js';
import { Attempts } from '../parts/attempts.js';
import { TaskLog } from '../parts/task_log.js';
import { TaskActions, copy } from '../parts/task_actions.js';
import { Icon } from '../parts/icons.js';

/** The task and its events; follows the stream until the end. */
function useTask(id) {
  const [state, setState] = useState({ task: null, events: [], error: null });
  const load = async () => {
    try {
      const task = await get(`/v1/tasks/${segment(id)}`);
      setState((before) => ({ ...before, task, error: null }));
    } catch (error) {
      setState((before) => ({ ...before, error }));
    }
  };
  const loadEvents = async () => {
    try {
      const { events } = await get(`/v1/tasks/${segment(id)}/events`, { });
      if (events) setState((before) => ({ ...before, events }));
    } catch { /* the task's own error is shown */ }
  };
  useEffect(() => {
    load();
    loadEvents();
    return follow(`/v1/tasks/${segment(id)}/events`, {
      pauseMs: 60,
      onBatch: (batch) => {
        const news = batch.filter((one) => one.event === 'state' || one.event === 'progress').map((one) => ({ ...one.data, event: one.event }));
        setState((before) => {
          const last = batch.at(-1).data;
          const task = before.task && last.phase ? { ...before.task, ...seen(before.task, last) } : before.task;
          return { ...before, task, events: merged(before.events, news) };
        });
        if (batch.some((one) => one.event !== 'progress' && one.event !== 'snapshot')) load();
        if (batch.some((one) => one.event === 'end')) loadEvents();
      },
    });
  }, [id]);
  return { ...state, load };
}

function seen(task, event) {
  if (event.seq < task.seq || FINAL.has(task.phase)) return {};
  return {
    phase: event.phase, status: event.status, seq: event.seq, worker: event.worker || task.worker,
    progress: event.meta ?? task.progress, started_at: task.started_at || (event.phase === 'running' ? event.at : null),
  };
}

function merged(events, news) {
  const known = new Set(events.map((event) => event.seq));
  return [...events, ...news.filter((event) => !known.has(event.seq))].sort((a, b) => a.seq - b.seq);
}

function Progress({ task }) {
  const progress = progressOf(task.progress);
  if (!task.progress) return null;
  const { message, stage, detail } = task.progress;
  const part = task.phase === 'succeeded' ? 1 : progress?.part;
  const tone = task.phase === 'succeeded' ? 'good' : task.phase === 'failed' ? 'bad' : '';
  return html`<section class="card stack" aria-label="Progress">
    ${progress && html`<div class="row small"><strong>${progress.text}</strong><span class="quiet" translate=${false}>${message || stage || detail || ''}</span></div>
      <${Bar} part=${part} kind=${tone} name="progress" />`}
    ${!progress && html`<${Json} value=${task.progress} name="progress" />`}
  </section>`;
}

function Facts({ task }) {
  const fact = (name, value) => (value === null || value === undefined || value === '' ? null : html`<dt>${name}</dt><dd>${value}</dd>`);
  const time = (value) => value && html`<${Time} value=${value} />`;
  const link = (id) => id && html`<${TaskLink} id=${id} />`;
  const labels = Object.keys(task.labels || {}).length > 0 && html`<${Labels} labels=${task.labels} />`;
  return html`<dl class="facts">
    ${fact('Task', task.task && html`<a href=${to('tasks', { task: task.task })}>all <${Name} text=${task.task} /></a>`)}
    ${fact('Queue', task.queue && html`<a translate=${false} href=${to('tasks', { queue: task.queue })}>${task.queue}</a>`)}
    ${fact('Priority', task.priority)}
    ${fact('Worker', task.worker && html`<a translate=${false} href=${to('tasks', { worker: task.worker })}>${task.worker}</a>`)}
    ${fact('Retries', task.retries || null)}
    ${fact('Waited', task.started_at && seconds(between(task.submitted_at, task.started_at)))}
    ${fact('Ran', task.runtime !== null && task.runtime !== undefined ? seconds(task.runtime) : task.started_at && task.finished_at && seconds(between(task.started_at, task.finished_at)))}
    ${fact('Held until', time(task.eta))}
    ${fact('Expires', time(task.expires))}
    ${fact('Parent', link(task.parent_id))}
    ${fact('Root', task.root_id !== task.task_id ? link(task.root_id) : null)}
    ${fact('Group', task.group_id && html`<a class="mono" href=${to('tasks', { group_id: task.group_id })}>${task.group_id}</a>`)}
    ${fact('Retry of', link(task.retry_of))}
    ${fact('Retried as', link(task.retried_as))}
    ${fact('Schedule', task.schedule && html`<a translate=${false} href=${to('schedules', { name: task.schedule })}>${task.schedule}</a>`)}
    ${fact('Reason', task.reason && html`<${Name} text=${task.reason} />`)}
    ${fact('Labels', labels || null)}
  </dl>`;
}

function Children({ children, depth = 0 }) {
  return html`<ul>${children.map((child) => html`<li key=${child.task_id || child.group_id}>
    ${child.task_id ? html`<${TaskLink} id=${child.task_id} />` : html`group <a class="mono" href=${to('tasks', { group_id: child.group_id })}>${child.group_id}</a>`}
    ${child.children?.length > 0 && depth < 6 && html`<${Children} children=${child.children} depth=${depth + 1} />`}</li>`)}</ul>`;
}

/** As it was put into the broker; asked for when somebody looks. */
function Message({ id }) {
  const { data, error } = useLoaded(`/v1/tasks/${segment(id)}/message`);
  if (error?.status === 404) return html`<p class="quiet">Its message was never seen here, or was removed after its time.</p>`;
  return html`<div class="stack"><${Trouble} error=${error} what="message" />
    ${data && html`<p class="small quiet">${count(data.bytes)} bytes of ${data.content_type} for ${data.queue}, delivery ${data.delivery}</p>
      <${Json} value=${{ headers: data.headers, body: data.body }} name="message" />`}</div>`;
}

function Content({ task }) {
  const tabs = [
    ['arguments', 'Arguments', () => (task.args === null && task.argsrepr !== undefined
      ? html`<pre class="json" tabindex="0" role="region" aria-label="arguments">${task.argsrepr}\n${task.kwargsrepr || ''}</pre>`
      : html`<${Json} value=${{ args: task.args, kwargs: task.kwargs }} name="arguments" />`)],
    task.successful && ['result', 'Result', () => html`<${Json} value=${task.result} name="result" />`],
    task.error && ['error', 'Error', () => html`<div class="stack"><p translate=${false}><strong>${task.error.type}</strong>: ${task.error.message}</p>
      ${task.traceback && html`<pre class="json" tabindex="0" role="region" aria-label="traceback">${task.traceback}</pre>`}</div>`],
    task.children?.length > 0 && ['children', 'Children', () => html`<${Children} children=${task.children} />`],
    ['message', 'Message', () => html`<${Message} id=${task.task_id} />`],
    ['log', 'Log', () => html`<${TaskLog} id=${task.task_id} />`],
    ['raw', 'Everything', () => html`<${Json} value=${task} name="everything" />`],
  ].filter(Boolean);
  const first = task.error ? 'error' : task.successful ? 'result' : 'arguments';
  return html`<${Tabs} tabs=${tabs} first=${first} key=${first} />`;
}

/** The canvas as a drawing, and along one clock. */
function Whole({ graph, task }) {
  const root = task.root_id || task.task_id;
  const { data } = useLoaded('/v1/tasks', { root_id: root, limit: 300 }, { everyMs: task.ready ? 0 : 3000 });
  const tasks = data?.tasks || [];
  const groups = new Map(tasks.filter((one) => one.group_id).map((one) => [one.task_id, one.group_id]));
  return html`<section class="card stack"><h2>Canvas</h2><${Graph} ...${graph} groups=${groups} here=${task.task_id} />
    <${Gantt} tasks=${tasks} here=${task.task_id} /></section>`;
}

export function TaskPage({ place }) {
  const id = place.rest[0];
  const { task, events, error, load } = useTask(id);
  const explain = useLoaded(task ? `/v1/tasks/${segment(id)}/explain` : null);
  const graph = useLoaded(task ? `/v1/tasks/${segment(id)}/graph` : null);
  useEffect(() => {
    if (task) {
      explain.reload();
      graph.reload();
    }
  }, [task?.phase]);
  if (!task) {
    const missing = error?.status === 404 && html`<${Notice} kind="warn">This ledger never saw the id ${id}.<//>`;
    return html`<div class="stack"><h1>Task</h1>${missing || html`<${Trouble} error=${error} what="task" />`}</div>`;
  }
  const sentence = explain.data && localTimes(explain.data.sentence);
  return html`<div class="stack">
    <div class="head">
      <div><h1>${task.task ? html`<${Name} text=${task.task} />` : 'unknown task'}</h1><div class="row"><span class="mono quiet wrap">${task.task_id}</span>
        <button type="button" class="icon" aria-label="Copy the id" onClick=${() => copy(task.task_id, 'id')}><${Icon} of="copy" /></button></div></div>
      <div class="row" role="status"><${Phase} ...${task} /></div>
    </div>
    ${sentence && html`<div class="notice ${task.failed ? 'bad' : task.ready ? 'good' : 'busy'}"><p class="explain">${sentence}</p>
      ${explain.data.evidence && html`<details class="small"><summary>Evidence</summary><${Json} value=${explain.data.evidence} name="evidence" /></details>`}</div>`}
    <${TaskActions} task=${task} onDone=${load} onNew=${(next) => go(taskPage(next))} />
    <${Progress} task=${task} />
    <div class="columns">
      <section class="card"><h2>Timeline</h2><${Timeline} task=${task} events=${events} /></section>
      <section class="card"><h2>Facts</h2><${Facts} task=${task} /></section>
    </div>
    <section class="card" aria-label="Content"><${Content} task=${task} /></section>
    <${Attempts} task=${task} events=${events} />
    ${graph.data?.nodes?.length > 1 && html`<${Whole} graph=${graph.data} task=${task} />`}
  </div>`;
}
