// The frame around all pages: navigation, scheme, token, and which page the address means.

import { html, render, useEffect, useRef, useState } from './view.js';
import { usePlace } from './place.js';
import { setToken, token } from './api.js';
import { Toasts } from './parts/toasts.js';
import { Dialog } from './parts/dialog.js';
import { Icon } from './parts/icons.js';
import { useLoaded } from './loading.js';
import { keepScheme, nextScheme, scheme } from './scheme.js';
import { Overview } from './pages/overview.js';
import { TaskList } from './pages/tasks.js';
import { TaskPage } from './pages/task.js';
import { Errors } from './pages/errors.js';
import { DeadLetters } from './pages/dead_letters.js';
import { Queues } from './pages/queues.js';
import { Workers } from './pages/workers.js';
import { Schedules } from './pages/schedules.js';
import { Submit } from './pages/submit.js';
import { Incidents } from './pages/incidents.js';

const PAGES = [
  ['overview', 'Overview', Overview],
  ['tasks', 'Tasks', TaskList],
  ['submit', 'Submit', Submit],
  ['errors', 'Errors', Errors],
  ['dead-letters', 'Dead letters', DeadLetters],
  ['queues', 'Queues', Queues],
  ['workers', 'Workers', Workers],
  ['schedules', 'Schedules', Schedules],
  ['incidents', 'Incidents', Incidents],
];

/** How many incidents are open: the one thing that is seen from every page. */
function Incidental() {
  const { data } = useLoaded('/v1/incidents', undefined, { everyMs: 15000 });
  const open = data?.incidents.length;
  return open > 0 && html`<span class="badge">${open}<span class="hidden"> open</span></span>`;
}

function TokenDialog({ onClose }) {
  const [text, setText] = useState(token() || '');
  const keep = () => {
    setToken(text.trim());
    location.reload();
  };
  return html`<${Dialog} title="Access token" onClose=${onClose} action=${keep} actionText="Use it">
    <label class="field">A token (tg_…) with the scopes that you need. It is kept until this tab is closed.
      <input type="password" autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
  <//>`;
}

function Side({ page, onToken }) {
  const [shown, setShown] = useState(scheme());
  const turn = () => setShown(nextScheme());
  return html`<nav class="side" aria-label="Pages">
    <a class="brand" href="#/"><img src="icon.svg" alt="" />taskgate</a>
    <div class="pages"><ul>${PAGES.map(([id, name]) => html`<li key=${id}><a href="#/${id}" aria-current=${id === page ? 'page' : undefined}>
      <${Icon} name=${id} />${name}${id === 'incidents' && html`<${Incidental} />`}</a></li>`)}</ul></div>
    <div class="foot">
      <a href="../swagger-ui/">API</a>
      <button type="button" class="link" onClick=${onToken}>Token</button>
      <button type="button" class="link" onClick=${turn} aria-label="Colours: ${shown}"><${Icon} name=${shown} />${shown}</button>
    </div>
  </nav>`;
}

function App() {
  const place = usePlace();
  const [asksToken, setAsksToken] = useState(false);
  const main = useRef(null);
  const moved = useRef(false);
  const known = PAGES.find(([id]) => id === place.page);
  const title = place.rest[0] ? `${place.rest[0]} · ${known?.[1]}` : known?.[1];
  useEffect(() => {
    document.title = `${title || 'Not found'} · taskgate`;
    // At the first look the page begins where every page begins: with the way past the navigation.
    if (moved.current) main.current?.focus({ preventScroll: true });
    moved.current = true;
    document.querySelector('.side [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
    scrollTo(0, 0);
  }, [place.page, place.rest.join('/')]);
  useEffect(() => {
    const ask = () => setAsksToken(true);
    addEventListener('taskgate:token', ask);
    return () => removeEventListener('taskgate:token', ask);
  }, []);
  const Page = place.page === 'tasks' && place.rest.length ? TaskPage : known?.[2];
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<div>
    <nav aria-label="Short cuts"><a class="skip" href="#main" onClick=${skip}>Skip to the content</a></nav>
    <div class="shell">
      <${Side} page=${place.page} onToken=${() => setAsksToken(true)} />
      <main id="main" tabindex="-1" ref=${main}>
        ${Page ? html`<${Page} key=${place.page + place.rest.join('/')} place=${place} />` : html`<h1>There is no such page</h1>`}
      </main>
    </div>
    ${asksToken && html`<${TokenDialog} onClose=${() => setAsksToken(false)} />`}
    <${Toasts} />
  </div>`;
}

keepScheme();
const root = document.getElementById('app');
root.replaceChildren();
render(html`<${App} />`, root);
