// The palette (one field that leads everywhere) and the list of keys.

import { html, useMemo, useRef, useState, useEffect } from '../view.js';
import { useLoaded } from '../loading.js';
import { GO } from '../keyboard.js';
import { go, taskPage, to } from '../place.js';
import { Dialog } from './dialog.js';

const MOST = 12;

export function Keys({ onClose }) {
  const keys = [['?', 'This list'], ['⌘K', 'Go anywhere'], ['/', 'To the search field'], ['j k', 'The next and the previous row'], ['Enter', 'Open the row']];
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <dl class="facts">${keys.map(([key, what]) => html`<dt key=${key}><kbd>${key}</kbd></dt><dd>${what}</dd>`)}
      ${Object.entries(GO).map(([key, page]) => html`<dt key=${key}><kbd>g</kbd> <kbd>${key}</kbd></dt><dd>${page.replace('-', ' ')}</dd>`)}</dl>
  <//>`;
}

/** Pages, task names, queues, schedules; an id as it is. */
export function Palette({ pages, onClose }) {
  const ref = useRef(null);
  const field = useRef(null);
  const [text, setText] = useState('');
  const [here, setHere] = useState(0);
  const queues = useLoaded('/v1/queues');
  const schedules = useLoaded('/v1/schedules', { limit: 500 });
  useEffect(() => {
    ref.current.showModal();
    field.current.focus();
  }, []);
  const all = useMemo(() => [
    ...pages.map(([id, name]) => [name, to(id)]),
    ...(queues.data?.queues || []).map(({ name }) => [`queue ${name}`, to(`queues/${encodeURIComponent(name)}`)]),
    ...(schedules.data?.schedules || []).map(({ name }) => [`schedule ${name}`, to('schedules', { name })]),
  ], [queues.data, schedules.data]);
  const wanted = text.trim().toLowerCase();
  const found = all.filter(([name]) => name.toLowerCase().includes(wanted)).slice(0, MOST);
  if (wanted) found.push([`Tasks with “${text.trim()}”`, to('tasks', { q: text.trim() })]);
  if (/^[0-9a-f]{8}-/.test(wanted)) found.unshift([`Task ${text.trim()}`, taskPage(text.trim())]);
  const chosen = Math.min(here, found.length - 1);
  const open = (event) => {
    event.preventDefault();
    onClose();
    if (found[chosen]) go(found[chosen][1]);
  };
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    setHere((chosen + step + found.length) % found.length);
  };
  return html`<dialog ref=${ref} class="palette" aria-label="Go anywhere" onClose=${onClose} onCancel=${onClose}>
    <form class="stack" onSubmit=${open}>
      <input ref=${field} type="text" role="combobox" aria-expanded="true" aria-controls="palette-list" aria-activedescendant=${found.length ? `palette-${chosen}` : undefined}
        aria-label="A page, a queue, a schedule, an id" placeholder="A page, a queue, a schedule, an id" value=${text} autocomplete="off"
        onInput=${(event) => { setText(event.target.value); setHere(0); }} onKeyDown=${move} />
      <ul class="plain" id="palette-list" role="listbox" aria-label="Places">${found.map(([name, place], index) => html`<li key=${place} id="palette-${index}" role="option" aria-selected=${index === chosen}>
        <a class=${index === chosen ? 'here' : ''} href=${place} tabindex="-1" onClick=${onClose}>${name}</a></li>`)}</ul>
    </form>
  </dialog>`;
}
