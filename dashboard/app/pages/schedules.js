// Schedules: when each one runs next and what became of its last runs; edit, pause, run now.

import { html, useState } from '../view.js';
import { may, post, remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { at, away } from '../words.js';
import { say } from '../languages/speech.js';
import { go, to } from '../place.js';
import { Name, TaskLink, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { attempt } from '../parts/toasts.js';
import { timetableWords } from '../parts/timetable_words.js';
import { ScheduleForm } from '../parts/schedule_form.js';
import { Calendar } from '../parts/calendar.js';
import { Segments } from '../parts/segments.js';

const timetable = (schedule) => schedule.cron || (schedule.every !== undefined && schedule.every !== null ? `every ${schedule.every} s` : `once at ${schedule.at}`);

/** The clock of the schedule's own zone, where it is not the reader's. */
function zoned(tick) {
  const there = tick.slice(11, 16);
  const isHere = at(tick).endsWith(`${there}:${tick.slice(17, 19)}`);
  return isHere ? '' : `${there} in its zone (${tick.slice(19).replace(/^\.\d+/, '')})`;
}

function Detail({ schedule: name, words }) {
  const preview = useLoaded(`/v1/schedules/${segment(name)}/preview`, { n: 10 });
  const runs = useLoaded(`/v1/schedules/${segment(name)}/runs`, { limit: 50 }, { everyMs: 10000 });
  return html`<div class="columns">
    <section class="card"><h2>Next runs</h2>${words && html`<p>${words}</p>`}<${Trouble} error=${preview.error} what="preview" />
      <dl class="facts">${(preview.data?.ticks || []).map((tick) => html`<dt key=${tick}>${away(tick)}</dt><dd><${Time} value=${tick} /> <span class="quiet small">${zoned(tick)}</span></dd>`)}</dl></section>
    <section class="card"><h2>History</h2><${Trouble} error=${runs.error} what="history of schedules" />
      ${runs.data?.runs.length === 0 && html`<p class="quiet">It has not fired yet.</p>`}
      ${runs.data?.runs.length > 0 && html`<div class="scroll tall" tabindex="0" role="region" aria-label="History"><table><thead><tr><th>Due</th><th>Fired</th><th>Outcome</th><th>Task</th></tr></thead>
        <tbody>${runs.data.runs.map((run) => html`<tr key=${run.scheduled_at + run.task_id}><td><${Time} value=${run.scheduled_at} /></td><td><${Time} value=${run.fired_at} /></td>
          <td>${run.outcome} <span class="small quiet">${run.reason}</span></td><td><${TaskLink} id=${run.task_id} /></td></tr>`)}</tbody></table></div>`}</section>
  </div>`;
}

function Row({ schedule, open, onChange, onEdit, onRemove }) {
  const path = `/v1/schedules/${segment(schedule.name)}`;
  const { name } = schedule;
  const act = (word, done) => async () => {
    await attempt(() => post(`${path}/${word}`), done);
    onChange();
  };
  return html`<tr aria-current=${open ? 'true' : undefined}>
    <td class="wrap"><a translate=${false} href=${to('schedules', { name: open ? undefined : name })} aria-expanded=${open}>${name}</a> ${schedule.paused && html`<span class="phase warn">paused</span>`}</td>
    <td class="wrap">${schedule.task ? html`<${Name} text=${schedule.task} />` : 'canvas'}</td>
    <td class="nowrap" title=${timetableWords(schedule) || undefined}><code>${timetable(schedule)}</code> <span class="small quiet">${schedule.timezone}</span></td>
    <td class="nowrap" data-name="next">${schedule.paused ? '–' : html`<${Time} value=${schedule.next_run_at} /> <span class="small quiet">${schedule.next_run_at ? away(schedule.next_run_at) : ''}</span>`}</td>
    <td class="nowrap" data-name="last"><${Time} value=${schedule.last_run_at} /></td>
    <td class="actions">${may('control') && html`<div class="row">
      <button type="button" aria-label="Run ${name}" onClick=${act('run', say('{name} runs now', { name }))}>Run</button>
      ${schedule.paused ? html`<button type="button" aria-label="Resume ${name}" onClick=${act('resume', say('{name} goes on', { name }))}>Resume</button>`
        : html`<button type="button" aria-label="Pause ${name}" onClick=${act('pause', say('{name} is paused', { name }))}>Pause</button>`}
      <button type="button" aria-label="Edit ${name}" onClick=${() => onEdit(schedule)}>Edit</button>
      <button type="button" class="danger" aria-label="Delete ${name}" onClick=${() => onRemove(schedule)}>Delete</button></div>`}</td></tr>`;
}

export function Schedules({ place }) {
  const { data, error, reload } = useLoaded('/v1/schedules', { limit: 500 }, { everyMs: 5000 });
  const [edited, setEdited] = useState(undefined);
  const [removed, setRemoved] = useState(null);
  const open = place.query.get('name');
  const erase = async () => {
    await attempt(() => remove(`/v1/schedules/${segment(removed.name)}`), say('{name} is deleted', { name: removed.name }));
    reload();
  };
  return html`<div class="stack">
    <div class="head"><h1>Schedules</h1><${Segments} label="View" choices=${[['list', 'As a list'], ['calendar', 'Calendar']]} chosen=${place.query.has('calendar') ? 'calendar' : 'list'}
      choose=${(id) => go(to('schedules', { calendar: id === 'calendar' ? '1' : undefined }))} />${may('control') && html`<button type="button" class="main" onClick=${() => setEdited(null)}>New…</button>`}</div>
    <${Trouble} error=${error} what="list of schedules" />
    ${edited !== undefined && html`<${ScheduleForm} key=${edited?.name} schedule=${edited} onDone=${() => { setEdited(undefined); reload(); }} />`}
    ${data && data.schedules.length === 0 && html`<${Empty} title="There is no schedule yet">A schedule submits a task or a canvas by cron, at an interval or once.<//>`}
    ${data && data.schedules.length > 0 && place.query.has('calendar') && html`<${Calendar} schedules=${data.schedules} />`}
    ${data && data.schedules.length > 0 && !place.query.has('calendar') && html`<div class="scroll" tabindex="0" role="region" aria-label="Schedules"><table class="folds">
      <thead><tr><th>Name</th><th>Task</th><th>Timetable</th><th>Next</th><th>Last</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.schedules.map((schedule) => html`<${Row} key=${schedule.name} schedule=${schedule} open=${schedule.name === open} onChange=${reload} onEdit=${setEdited} onRemove=${setRemoved} />`)}</tbody>
    </table></div>`}
    ${open && html`<${Detail} key=${open} schedule=${open} words=${timetableWords(data?.schedules.find(({ name }) => name === open) || {})} />`}
    ${removed && html`<${Dialog} title=${say('Delete {name}?', { name: removed.name })} danger actionText="Delete" action=${erase} onClose=${() => setRemoved(null)}><p>It fires no more. Tasks that it submitted stay.</p><//>`}
  </div>`;
}
