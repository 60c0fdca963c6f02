// A question before something that cannot be taken back. The browser's dialog keeps the focus and listens to Escape.

import { html, useEffect, useRef, useState } from '../view.js';

export function Dialog({ title, children, onClose, action, actionText = 'OK', danger, nothing = false }) {
  const ref = useRef(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    ref.current.showModal();
  }, []);
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    await action();
    setBusy(false);
    onClose();
  };
  return html`<dialog ref=${ref} aria-label=${title} onClose=${onClose} onCancel=${onClose}>
    <form class="stack" onSubmit=${act}>
      <h2>${title}</h2>
      ${children}
      <div class="row">
        <button class=${danger ? 'danger' : 'main'} disabled=${busy || nothing}>${actionText}</button>
        <button type="button" onClick=${onClose}>Cancel</button>
      </div>
    </form>
  </dialog>`;
}
