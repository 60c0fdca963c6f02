// One of a few choices, as a row of buttons that are pressed or not.

import { html } from '../view.js';

/** `choices: [[id, name]]` */
export const Segments = ({ label, choices, chosen, choose }) => html`<div class="segments" role="group" aria-label=${label}>
  ${choices.map(([id, name]) => html`<button type="button" key=${id} aria-pressed=${id === chosen} onClick=${() => choose(id)}>${name}</button>`)}</div>`;
