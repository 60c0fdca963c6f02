// Short news about what the reader did, in the corner and for screen readers.

import { html, useEffect, useState } from '../view.js';

const KEPT_MS = 7000;

export function toast(text, kind = 'good') {
  dispatchEvent(new CustomEvent('taskgate:toast', { detail: { text, kind, key: crypto.randomUUID?.() ?? String(Math.random()) } }));
}

/** Runs an action and says how it ended. Returns its value, or undefined when it was refused. */
export async function attempt(action, done) {
  try {
    const value = await action();
    const text = typeof done === 'function' ? done(value) : done;
    if (text) toast(text);
    return value ?? true;
  } catch (error) {
    toast(error.message, 'bad');
    return undefined;
  }
}

export function Toasts() {
  const [list, setList] = useState([]);
  useEffect(() => {
    const add = ({ detail }) => {
      setList((before) => [...before.slice(-3), detail]);
      setTimeout(() => setList((before) => before.filter((one) => one.key !== detail.key)), KEPT_MS);
    };
    addEventListener('taskgate:toast', add);
    return () => removeEventListener('taskgate:toast', add);
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${list.map((one) => html`<div class="notice ${one.kind}" key=${one.key}>${one.text}</div>`)}
  </div>`;
}
