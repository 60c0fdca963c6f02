// Tabs as the ARIA pattern asks for them: arrow keys move, one is in the tab order.

import { html, useState } from '../view.js';

export function Tabs({ tabs, first }) {
  const [chosen, setChosen] = useState(first);
  const current = tabs.find(([id]) => id === chosen) || tabs[0];
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const index = tabs.indexOf(current);
    const next = tabs[(index + step + tabs.length) % tabs.length];
    setChosen(next[0]);
    event.currentTarget.querySelector(`#tab-${next[0]}`)?.focus();
  };
  return html`<div>
    <div class="tabs" role="tablist" onKeyDown=${move}>${tabs.map(([id, name]) => html`<button type="button" role="tab" key=${id} id="tab-${id}"
      aria-selected=${id === current[0]} aria-controls="panel" tabindex=${id === current[0] ? 0 : -1} onClick=${() => setChosen(id)}>${name}</button>`)}</div>
    <div role="tabpanel" id="panel" aria-labelledby="tab-${current[0]}">${current[2]()}</div>
  </div>`;
}
