// Keys that work on every page: a list of them, a palette, letters that lead to pages, and j and k along the rows.

import { useEffect } from './view.js';
import { go, to } from './place.js';

/** After `g`. */
export const GO = { o: 'overview', t: 'tasks', s: 'submit', e: 'errors', d: 'dead-letters', q: 'queues', r: 'charts', l: 'limits', p: 'waits', w: 'workers', c: 'schedules', i: 'incidents', h: 'webhooks', n: 'inboxes', k: 'tokens', a: 'audit' };
const GO_MS = 1500;

const isWriting = (target) => target.closest?.('input:not([type=checkbox]), textarea, select, [contenteditable]');

/** Moves along the rows of the page's first table: the row is marked, its link has the focus. */
function along(step) {
  const rows = [...document.querySelectorAll('main tbody tr')].filter((row) => row.querySelector('a'));
  if (rows.length === 0) return;
  const here = rows.findIndex((row) => row.classList.contains('at-keyboard'));
  rows[here]?.classList.remove('at-keyboard');
  const next = rows[Math.max(0, Math.min(rows.length - 1, here + step))];
  next.classList.add('at-keyboard');
  next.querySelector('a').focus();
  next.scrollIntoView({ block: 'nearest' });
}

/** `open(name)`: shows `keys` or `palette`. */
export function useKeyboard(open) {
  useEffect(() => {
    let wentAt = -Infinity;
    const press = (event) => {
      if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') {
        event.preventDefault();
        open('palette');
        return;
      }
      if (event.metaKey || event.ctrlKey || event.altKey || isWriting(event.target) || document.querySelector('dialog[open]')) return;
      const after = event.timeStamp - wentAt < GO_MS;
      wentAt = -Infinity;
      if (after && GO[event.key]) go(to(GO[event.key]));
      else if (event.key === 'g') wentAt = event.timeStamp;
      else if (event.key === '?') open('keys');
      else if (event.key === 'j') along(1);
      else if (event.key === 'k') along(-1);
      else if (event.key === '/') {
        const search = document.querySelector('main input[type=search]');
        if (!search) return;
        event.preventDefault();
        search.focus();
      }
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
}
