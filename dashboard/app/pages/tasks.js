// The list of tasks: filters in the address, live rows, "n new" instead of rows that jump.

import { html, useEffect, useMemo, useRef, useState } from '../view.js';
import { get } from '../api.js';
import { follow } from '../stream.js';
import { FINAL, PHASES, count, seconds, between } from '../words.js';
import { go, taskPage, to } from '../place.js';
import { Bar, Labels, Phase, TaskLink, Time, Trouble, progressOf } from '../parts/basics.js';
import { translate } from '../languages/speech.js';
import { BulkActions } from '../parts/bulk.js';
import { Empty, Icon } from '../parts/icons.js';
import { OutcomeTabs } from '../parts/outcome_tabs.js';
import { COLUMNS, TableTools, useColumns } from '../parts/table_tools.js';
import { useLoaded } from '../loading.js';

const ROWS = 100;
/** A search in arguments looks at one month a page: so many pages without a row are passed by. */
const EMPTY_PAGES = 12;
/** More new ones than this are only "more". */
const MOST_NEW = 9999;
const FILTERS = ['phase', 'status', 'task', 'queue', 'worker', 'label', 'root_id', 'group_id', 'schedule', 'from', 'to', 'q', 'argument'];

export function filtersOf(query) {
  const filters = {};
  for (const name of FILTERS) {
    const values = query.getAll(name);
    if (values.length) filters[name] = values.length > 1 ? values : values[0];
  }
  return filters;
}

const asList = (value) => (value === undefined ? [] : [].concat(value).flatMap((one) => one.split(',')));

/** A page of the list; of a search in arguments the next one that has a row. */
async function pageFrom(filters, cursor, signal) {
  let page = await get('/v1/tasks', { ...filters, limit: ROWS, cursor }, signal);
  for (let empty = 0; filters.argument && page.tasks.length === 0 && page.next && empty < EMPTY_PAGES; empty += 1) {
    page = await get('/v1/tasks', { ...filters, limit: ROWS, cursor: page.next }, signal);
  }
  return page;
}

/** Rows and counts as the stream changes them. The stream is not filtered by phase: rows must be seen leaving it. */
function useLiveTasks(filters) {
  const [state, setState] = useState({ rows: null, next: null, error: null, fresh: 0, link: 'waiting' });
  const known = useRef(new Map());
  const fresh = useRef(new Set());
  /** The search that is under way. */
  const asked = useRef(null);
  const key = JSON.stringify(filters);
  const phases = asList(filters.phase);
  const statuses = asList(filters.status);

  /** Reads a page and hands it on, unless something else was asked for meanwhile: then it ends. */
  const search = async (cursor, take) => {
    asked.current?.abort();
    const abort = new AbortController();
    asked.current = abort;
    try {
      const page = await pageFrom(filters, cursor, abort.signal);
      if (!abort.signal.aborted) take(page);
    } catch (error) {
      if (!abort.signal.aborted) setState((before) => ({ ...before, error }));
    }
  };
  const load = () => search(undefined, (page) => {
    known.current = new Map(page.tasks.map((task) => [task.task_id, task]));
    fresh.current.clear();
    setState((before) => ({ ...before, rows: page.tasks, next: page.next, error: null, fresh: 0 }));
  });
  const more = () => search(state.next, (page) => {
    for (const task of page.tasks) known.current.set(task.task_id, task);
    setState((before) => ({ ...before, rows: [...before.rows, ...page.tasks], next: page.next, error: null }));
  });

  const onBatch = (batch) => {
    let touched = false;
    for (const { data } of batch) {
      const row = known.current.get(data.task_id);
      if (row) {
        if (data.seq > row.seq) {
          known.current.set(data.task_id, changed(row, data));
          touched = true;
        }
      } else if (fits(data, phases, statuses) && fresh.current.size <= MOST_NEW) {
        fresh.current.add(data.task_id);
      }
    }
    setState((before) => ({
      ...before,
      fresh: fresh.current.size,
      rows: touched && before.rows ? before.rows.map((row) => known.current.get(row.task_id)) : before.rows,
    }));
  };

  useEffect(() => {
    setState((before) => ({ ...before, rows: null, next: null, error: null, fresh: 0 }));
    load();
    const { phase, status, ...rest } = filters;
    const leave = follow('/v1/events', {
      query: rest, onBatch, pauseMs: 300, onState: (link) => setState((before) => ({ ...before, link })),
    });
    return () => {
      asked.current?.abort();
      leave();
    };
  }, [key]);
  return { ...state, load, more };
}

/** Of a task that the list does not show: is it news for this list? Without a phase filter only a task's beginning is. */
function fits(event, phases, statuses) {
  if (phases.length || statuses.length) {
    return (!phases.length || phases.includes(event.phase)) && (!statuses.length || statuses.includes(event.status));
  }
  return event.seq <= 1;
}

function changed(row, event) {
  const next = { ...row, phase: event.phase, status: event.status, seq: event.seq, worker: event.worker || row.worker, retries: event.retries };
  if (event.phase === 'running') {
    next.started_at ||= event.at;
    if (event.meta) next.progress = event.meta;
  }
  if (FINAL.has(event.phase)) next.finished_at = event.at;
  return next;
}

function runtime(task) {
  if (typeof task.runtime === 'number') return seconds(task.runtime);
  return task.started_at && task.finished_at ? seconds(between(task.started_at, task.finished_at)) : '–';
}

const waited = (task) => (task.started_at ? between(task.submitted_at, task.started_at) : null);

/** A cell of a column that the reader chose. */
function Cell({ id, task }) {
  if (id === 'queue') return html`<td translate=${false} data-name="in">${task.queue || '–'}</td>`;
  if (id === 'submitted_at' || id === 'finished_at') return html`<td class="nowrap"><${Time} value=${task[id]} /></td>`;
  if (id === 'waited') return html`<td class="number" data-name="waited">${seconds(waited(task))}</td>`;
  if (id === 'ran') return html`<td class="number" data-name="ran">${runtime(task)}</td>`;
  if (id === 'worker') return html`<td class="wrap small" translate=${false}>${task.worker || '–'}</td>`;
  if (id === 'error') return html`<td class="wrap small" translate=${false}>${task.error?.message?.slice(0, 160) || '–'}</td>`;
  return html`<td class="number" data-name=${id}>${count(task[id])}</td>`;
}

/** What rows are ordered by, of those that are shown. */
const MEASURES = {
  task: (task) => task.task || '', phase: (task) => task.phase, queue: (task) => task.queue || '', submitted_at: (task) => task.submitted_at,
  finished_at: (task) => task.finished_at || '', waited: (task) => waited(task) ?? -1, worker: (task) => task.worker || '', retries: (task) => task.retries || 0,
  priority: (task) => task.priority || 0, error: (task) => task.error?.message || '',
  ran: (task) => task.runtime ?? between(task.started_at, task.finished_at) ?? -1,
};

function sorted(rows, order) {
  if (!order) return rows;
  const measure = MEASURES[order.by];
  const sign = order.down ? -1 : 1;
  return [...rows].sort((a, b) => (measure(a) < measure(b) ? -sign : measure(a) > measure(b) ? sign : 0));
}

function Head({ id, name, order, setOrder, number }) {
  const mine = order?.by === id;
  const turn = () => setOrder(!mine ? { by: id, down: true } : order.down ? { by: id, down: false } : null);
  return html`<th class=${number ? 'number' : ''} aria-sort=${mine ? (order.down ? 'descending' : 'ascending') : undefined}>
    <button type="button" title="Order the rows that are shown" onClick=${turn}>${name}${mine ? (order.down ? ' ↓' : ' ↑') : ''}</button></th>`;
}

function Row({ task, picked, onPick, shown }) {
  const progress = task.phase === 'running' && progressOf(task.progress);
  return html`<tr>
    <td><input type="checkbox" aria-label="Select ${task.task_id}" checked=${picked} onChange=${() => onPick(task.task_id)} /></td>
    <td class="nowrap"><${TaskLink} id=${task.task_id} /></td>
    <td class="wrap"><a class="plain-link" translate=${false} href=${taskPage(task.task_id)} tabindex="-1">${task.task || translate('unknown')}</a> <${Labels} labels=${task.labels} /></td>
    <td class="nowrap">${progress ? html`<${Bar} part=${progress.part} name="progress of ${task.task_id}" />` : html`<${Phase} ...${task} />`}
      ${task.error && html` <span class="small quiet" translate=${false}>${task.error.type}</span>`}</td>
    ${shown.map((id) => html`<${Cell} key=${id} id=${id} task=${task} />`)}
  </tr>`;
}

export function Filters({ filters, change, withPhase = true, names = [] }) {
  const field = (name, label, hint) => html`<label class="field ${name === 'q' ? 'wide' : ''}"><span>${label}</span>
    <input type=${name === 'q' ? 'search' : 'text'} name=${name} list=${name === 'task' ? 'task-names' : undefined} value=${[].concat(filters[name] || '').join(',')} placeholder=${hint} /></label>`;
  const submit = (event) => {
    event.preventDefault();
    const next = { ...filters };
    for (const [name, value] of new FormData(event.target)) next[name] = String(value).trim() || undefined;
    change(next);
  };
  return html`<form class="filters" role="search" onSubmit=${submit} key=${JSON.stringify(filters)}>
    ${field('q', 'Search', 'id, name, label, error')}
    ${withPhase && html`<label class="field"><span>Phase</span><select name="phase" value=${[].concat(filters.phase || '').join(',')} onChange=${(event) => event.target.form.requestSubmit()}>
      <option value="">any</option>
      <option value="accepted,held,waiting,queued">waiting (all)</option>
      <option value="received,running,retrying">with a worker</option>
      <option value="failed,lost">failed or lost</option>
      ${PHASES.map((phase) => html`<option value=${phase} key=${phase}>${phase}</option>`)}</select></label>`}
    ${field('task', 'Task', 'tasks.add')}
    ${field('queue', 'Queue', 'any')}
    ${field('worker', 'Worker', 'any')}
    ${field('label', 'Label', 'key:value')}
    ${field('argument', 'Argument', 'part of one, as JSON')}
    ${names.length > 0 && html`<datalist id="task-names">${names.map((name) => html`<option key=${name} translate=${false} value=${name} />`)}</datalist>`}
    <button class="main">Filter</button>
    ${Object.keys(filters).length > 0 && html`<button type="button" onClick=${() => change({})}>Clear</button>`}
  </form>`;
}

/** Filters that have no field of their own: each can be taken away. */
function Chips({ filters, change }) {
  const others = Object.keys(filters).filter((name) => !['q', 'phase', 'task', 'queue', 'worker', 'label', 'argument'].includes(name));
  return others.length > 0 && html`<div class="chips">${others.map((name) => html`<span class="chip" key=${name}>${name.replace('_', ' ')}: ${[].concat(filters[name]).join(', ')}
    <button type="button" aria-label="Without ${name}" onClick=${() => change({ ...filters, [name]: undefined })}><${Icon} of="close" /></button></span>`)}</div>`;
}

const NUMBERS = new Set(['waited', 'ran', 'retries', 'priority']);

/** Names to suggest: the catalog's, and those of the rows. */
function namesOf(capabilities, rows) {
  const known = (capabilities?.tasks || capabilities?.catalog || []).map((one) => one.name || one.task || one).filter((one) => typeof one === 'string');
  return [...new Set([...known, ...rows.map((row) => row.task).filter(Boolean)])].sort().slice(0, 200);
}

export function TaskList({ place }) {
  const filters = useMemo(() => filtersOf(place.query), [place.query.toString()]);
  const live = useLiveTasks(filters);
  const change = (next) => go(to('tasks', next));
  const [picked, setPicked] = useState(new Set());
  const pick = (id) => setPicked((before) => {
    const next = new Set(before);
    if (!next.delete(id)) next.add(id);
    return next;
  });
  useEffect(() => setPicked(new Set()), [place.query.toString()]);
  const [shown, toggle] = useColumns();
  const [order, setOrder] = useState(null);
  const registered = useLoaded('/v1/capabilities');
  const rows = sorted(live.rows || [], order);
  const all = rows.length > 0 && picked.size === rows.length;
  const link = { open: 'live', waiting: 'connecting…', refused: 'not live' }[live.link] || live.link;
  return html`<div class="stack">
    <div class="head"><h1>Tasks</h1><span class="phase ${link === 'live' ? 'good' : ''} sub" role="status">${link}</span></div>
    <${OutcomeTabs} filters=${filters} change=${change} />
    <${Filters} filters=${filters} change=${change} names=${namesOf(registered.data, rows)} />
    <${TableTools} filters=${filters} change=${change} shown=${shown} toggle=${toggle} />
    <${Chips} filters=${filters} change=${change} />
    <${Trouble} error=${live.error} what="list of tasks" />
    <div class="head"><${BulkActions} filters=${filters} picked=${[...picked]} onDone=${() => { setPicked(new Set()); live.load(); }} />
      <div aria-live="polite">${live.fresh > 0 && html`<button type="button" class="main" id="fresh" onClick=${live.load}>
        ${live.fresh > MOST_NEW ? `more than ${count(MOST_NEW)}` : count(live.fresh)} new</button>`}</div></div>
    ${live.rows && rows.length === 0 && html`<${Empty} title="No task fits">${Object.keys(filters).length > 0
      ? html`<button type="button" onClick=${() => change({})}>Clear the filters</button>${live.next && html` <button type="button" onClick=${live.more}>Look further back</button>`}` : html`<a href="#/submit">Submit the first one</a>`}<//>`}
    ${rows.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Tasks"><table class="folds">
      <thead><tr>
        <th><input type="checkbox" aria-label="Select all" checked=${all} onChange=${() => setPicked(all ? new Set() : new Set(rows.map((row) => row.task_id)))} /></th>
        <th>Id</th><${Head} id="task" name="Task" order=${order} setOrder=${setOrder} /><${Head} id="phase" name="Phase" order=${order} setOrder=${setOrder} />
        ${COLUMNS.filter(([id]) => shown.includes(id)).map(([id, name]) => html`<${Head} key=${id} id=${id} name=${name} order=${order} setOrder=${setOrder} number=${NUMBERS.has(id)} />`)}</tr></thead>
      <tbody>${rows.map((task) => html`<${Row} key=${task.task_id} task=${task} picked=${picked.has(task.task_id)} onPick=${pick} shown=${shown} />`)}</tbody>
    </table></div>
    ${live.next && rows.length < 1000 && html`<div><button type="button" onClick=${live.more}>Older ones</button></div>`}`}
  </div>`;
}
