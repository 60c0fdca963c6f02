// What a reader does with the list as a whole: which columns it has, views that are kept by name, and the rows as a file.

import { html, useState } from '../view.js';
import { get } from '../api.js';
import { go, to } from '../place.js';
import { count } from '../words.js';
import { toast } from './toasts.js';

const COLUMNS_KEY = 'taskgate-columns';
const VIEWS_KEY = 'taskgate-views';
/** Rows of one file. */
const MOST = 20000;
const PAGE = 500;

/** `[id, name, shown at first]` */
export const COLUMNS = [
  ['queue', 'Queue', true], ['submitted_at', 'Submitted', true], ['waited', 'Waited', false], ['ran', 'Ran', true],
  ['worker', 'Worker', true], ['retries', 'Retries', false], ['priority', 'Priority', false], ['finished_at', 'Ended', false], ['error', 'Error', false],
];

function kept(key, usual) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? usual;
  } catch {
    return usual;
  }
}

export function useColumns() {
  const [shown, setShown] = useState(() => kept(COLUMNS_KEY, COLUMNS.filter(([, , first]) => first).map(([id]) => id)));
  const toggle = (id) => {
    const next = shown.includes(id) ? shown.filter((one) => one !== id) : COLUMNS.map(([one]) => one).filter((one) => one === id || shown.includes(one));
    localStorage.setItem(COLUMNS_KEY, JSON.stringify(next));
    setShown(next);
  };
  return [shown, toggle];
}

const Columns = ({ shown, toggle }) => html`<details><summary>Columns</summary><div>${COLUMNS.map(([id, name]) => html`<label class="row" key=${id}>
  <input type="checkbox" checked=${shown.includes(id)} onChange=${() => toggle(id)} /> ${name}</label>`)}</div></details>`;

function Views({ filters }) {
  const [views, setViews] = useState(() => kept(VIEWS_KEY, {}));
  const keep = (next) => {
    localStorage.setItem(VIEWS_KEY, JSON.stringify(next));
    setViews(next);
  };
  const add = (event) => {
    event.preventDefault();
    const name = String(new FormData(event.target).get('view')).trim();
    if (name) keep({ ...views, [name]: filters });
    event.target.reset();
  };
  return html`<details><summary>Views</summary><div>
    ${Object.entries(views).map(([name, its]) => html`<div class="row" key=${name}><a translate=${false} href=${to('tasks', its)}>${name}</a>
      <button type="button" class="inline danger" aria-label="Forget ${name}" onClick=${() => keep(Object.fromEntries(Object.entries(views).filter(([one]) => one !== name)))}>×</button></div>`)}
    <form class="row" onSubmit=${add}><input name="view" aria-label="Name of the view" placeholder="Name of the view" required maxlength="60" /><button>Keep</button></form></div></details>`;
}

const FIELDS = ['task_id', 'task', 'phase', 'status', 'queue', 'worker', 'priority', 'retries', 'submitted_at', 'started_at', 'finished_at', 'runtime', 'error_type', 'error_message', 'labels'];

const field = (task, name) => ({
  error_type: task.error?.type, error_message: task.error?.message, labels: Object.keys(task.labels || {}).length ? JSON.stringify(task.labels) : '',
}[name] ?? task[name] ?? '');

/** A text that a spreadsheet would take for a formula stays a text. */
const quoted = (value) => `"${String(value).replace(/^[=+@\t\r-]/, "'$&").replaceAll('"', '""')}"`;

export const asCsv = (tasks) => [FIELDS.join(','), ...tasks.map((task) => FIELDS.map((name) => quoted(field(task, name))).join(','))].join('\r\n');

function save(text, type, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function Export({ filters }) {
  const [loaded, setLoaded] = useState(null);
  const take = async (kind) => {
    const tasks = [];
    try {
      let cursor;
      do {
        const page = await get('/v1/tasks', { ...filters, limit: PAGE, cursor });
        tasks.push(...page.tasks);
        cursor = page.next;
        setLoaded(tasks.length);
      } while (cursor && tasks.length < MOST);
      if (kind === 'csv') save(asCsv(tasks), 'text/csv', 'tasks.csv');
      else save(tasks.map((task) => `${JSON.stringify(task)}\n`).join(''), 'application/x-ndjson', 'tasks.ndjson');
      toast(`${count(tasks.length)} tasks${cursor ? '; there are more' : ''}`, cursor ? 'warn' : 'good');
    } catch (error) {
      toast(error.message, 'bad');
    }
    setLoaded(null);
  };
  return html`<details><summary>Export</summary><div>
    <button type="button" disabled=${loaded !== null} onClick=${() => take('csv')}>CSV</button>
    <button type="button" disabled=${loaded !== null} onClick=${() => take('ndjson')}>NDJSON</button>
    ${loaded !== null && html`<span class="small quiet" role="status">${count(loaded)}</span>`}</div></details>`;
}

const RANGES = [['', 'any time', 0], ['15m', 'last 15 minutes', 900], ['1h', 'last hour', 3600], ['24h', 'last 24 hours', 86400], ['7d', 'last 7 days', 604800]];

/** Since when: a range that is counted back from now, or what the address says. */
function Since({ filters, change }) {
  const choose = (event) => {
    const [, , span] = RANGES.find(([id]) => id === event.target.value) || RANGES[0];
    change({ ...filters, to: undefined, from: span ? new Date(Date.now() - span * 1000).toISOString() : undefined });
  };
  const span = filters.from ? (Date.now() - new Date(filters.from)) / 1000 : 0;
  const near = RANGES.find(([, , secs]) => secs && Math.abs(secs - span) < secs * 0.2);
  return html`<label class="row small quiet">Submitted <select aria-label="Submitted" value=${near ? near[0] : ''} onChange=${choose}>
    ${RANGES.map(([id, name]) => html`<option key=${id} value=${id} selected=${(near ? near[0] : '') === id}>${name}</option>`)}</select></label>`;
}

export const TableTools = ({ filters, change, shown, toggle }) => html`<div class="views" role="group" aria-label="The list">
  <${Since} filters=${filters} change=${change} /><${Views} filters=${filters} /><${Columns} shown=${shown} toggle=${toggle} /><${Export} filters=${filters} /></div>`;
