// A schedule as a form: its task, its rhythm in words with the next ten times, and the whole as JSON for what the form has no field for.

import { html, useEffect, useState } from '../view.js';
import { call, post, put, segment } from '../api.js';
import { say } from '../languages/speech.js';
import { away, json } from '../words.js';
import { Notice, Time } from './basics.js';
import { Segments } from './segments.js';
import { timetableWords } from './timetable_words.js';

const COMPUTED = ['next_run_at', 'last_run_at', 'links', 'last_task_id', 'created_at', 'updated_at'];
const RHYTHMS = [['cron', 'Cron'], ['every', 'Interval'], ['at', 'Once']];
const PAUSE_MS = 400;
const NEXT = 10;

const start = (schedule) => (schedule
  ? Object.fromEntries(Object.entries(schedule).filter(([name, value]) => !COMPUTED.includes(name) && value !== null))
  : { name: 'my-schedule', task: '', args: [], cron: '0 * * * *', timezone: Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC' });

function read(text) {
  try {
    const document = JSON.parse(text);
    return document && typeof document === 'object' && !Array.isArray(document) ? document : null;
  } catch {
    return null;
  }
}

const rhythmOf = (document) => RHYTHMS.map(([id]) => id).find((id) => document[id] !== undefined) || 'cron';
const USUAL = { cron: '0 * * * *', every: 3600, at: () => new Date(Date.now() + 3600000).toISOString().replace(/\.\d+Z$/, 'Z') };

/** What the gateway says of the document: its next times, or what is wrong with it. */
function usePreview(text) {
  const [told, setTold] = useState({ ticks: null, refused: null });
  useEffect(() => {
    const document = read(text);
    if (!document) return setTold({ ticks: null, refused: null });
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const { ticks } = await call('POST', '/v1/schedule-preview', { query: { n: NEXT }, body: document, signal: abort.signal });
        setTold({ ticks, refused: null });
      } catch (error) {
        if (error.name !== 'AbortError') setTold({ ticks: null, refused: error });
      }
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text]);
  return told;
}

const Places = ({ error }) => html`<${Notice} kind="bad" live>${error.message}${(error.places || []).map((place) => html`<div class="small mono" key=${place.pointer}>${place.pointer}: ${place.detail}</div>`)}<//>`;

function Fields({ document, change, isNew }) {
  const text = (name, label, more = {}) => html`<label class="field"><span>${label}</span><input type="text" value=${document[name] ?? ''} ...${more}
    onInput=${(event) => change({ [name]: event.target.value || undefined })} /></label>`;
  const values = (name, label, hint) => html`<label class="field"><span>${label}</span><textarea spellcheck=${false} placeholder=${hint} defaultValue=${document[name] === undefined ? '' : JSON.stringify(document[name])}
    onChange=${(event) => { try { change({ [name]: event.target.value.trim() ? JSON.parse(event.target.value) : undefined }); event.target.setCustomValidity(''); } catch (error) { event.target.setCustomValidity(error.message); event.target.reportValidity(); } }}></textarea></label>`;
  const rhythm = rhythmOf(document);
  const turn = (id) => change({ cron: undefined, every: undefined, at: undefined, [id]: typeof USUAL[id] === 'function' ? USUAL[id]() : USUAL[id] });
  return html`<div class="stack"><div class="fields">
      ${text('name', 'Name', { disabled: !isNew, pattern: '[A-Za-z0-9_.\\-]{1,100}', required: true })}
      ${!document.chain && !document.group && !document.chord && text('task', 'Task', { required: true })}
      ${text('queue', 'Queue', { placeholder: 'as the routes say' })}
      ${values('args', 'Arguments (JSON list)', '[]')}${values('kwargs', 'Arguments by name (JSON)', '{}')}
    </div>
    <div class="fields">
      <div class="field"><span>Rhythm</span><${Segments} label="Rhythm" choices=${RHYTHMS} chosen=${rhythm} choose=${turn} /></div>
      ${rhythm === 'cron' && text('cron', 'Cron: minute, hour, day, month, weekday', { required: true, class: 'mono' })}
      ${rhythm === 'every' && html`<label class="field"><span>Seconds between two runs</span><input type="number" min="1" step="any" value=${document.every} onInput=${(event) => change({ every: Number(event.target.value) })} /></label>`}
      ${rhythm === 'at' && text('at', 'Time, as 2030-01-01T08:00:00Z', { required: true })}
      ${rhythm !== 'every' && text('timezone', 'Time zone', { placeholder: 'UTC' })}
    </div></div>`;
}

export function ScheduleForm({ schedule, onDone }) {
  const [text, setText] = useState(() => json(start(schedule)));
  const [refused, setRefused] = useState(null);
  const preview = usePreview(text);
  const document = read(text);
  const change = (more) => setText(json({ ...document, ...more }));
  const save = async (event) => {
    event.preventDefault();
    try {
      if (schedule) await put(`/v1/schedules/${segment(schedule.name)}`, JSON.parse(text));
      else await post('/v1/schedules', JSON.parse(text));
      onDone();
    } catch (error) {
      setRefused(error);
    }
  };
  const words = document && timetableWords(document);
  return html`<form class="card stack" onSubmit=${save}>
    <h2>${schedule ? say('Edit {name}', { name: schedule.name }) : 'New schedule'}</h2>
    ${document && html`<${Fields} document=${document} change=${change} isNew=${!schedule} />`}
    <details><summary>As JSON</summary><label class="field"><span>The schedule as JSON: a signature with cron, every or at</span>
      <textarea rows="12" spellcheck=${false} name="document" value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label></details>
    <div role="status"><span class="quiet">In words:</span> ${document ? words || 'neither cron, every nor at' : 'not JSON yet'}
      ${preview.ticks && html`<ol class="ticks small">${preview.ticks.map((tick) => html`<li key=${tick}><${Time} value=${tick} /> <span class="quiet">${away(tick)}</span></li>`)}</ol>`}</div>
    ${refused ? html`<${Places} error=${refused} />` : preview.refused && html`<${Places} error=${preview.refused} />`}
    <div class="row"><button class="main">Save</button><button type="button" onClick=${onDone}>Cancel</button></div>
  </form>`;
}
