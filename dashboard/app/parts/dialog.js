// A question before something that cannot be taken back. The browser's dialog keeps the focus and listens to Escape; what would
// destroy something is never what Enter does by itself.

import { html, useEffect, useRef, useState } from '../view.js';

/** `focus`: `cancel` (the default) or `field`, where the dialog is a form that destroys nothing. */
export function Dialog({ title, children, onClose, action, actionText = 'OK', danger, nothing = false, focus = 'cancel' }) {
  const ref = useRef(null);
  const cancel = useRef(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    ref.current.showModal();
    if (focus === 'cancel') cancel.current.focus();
  }, []);
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    const stays = await action();
    setBusy(false);
    if (stays !== 'stay') onClose();
  };
  return html`<dialog ref=${ref} aria-label=${title} onClose=${onClose} onCancel=${onClose}>
    <form class="stack" onSubmit=${act}>
      <h2>${title}</h2>
      ${children}
      <div class="row">
        ${action && html`<button class=${danger ? 'danger' : 'main'} disabled=${busy || nothing}>${actionText}</button>`}
        <button type="button" ref=${cancel} onClick=${onClose}>${action ? 'Cancel' : 'Close'}</button>
      </div>
    </form>
  </dialog>`;
}
