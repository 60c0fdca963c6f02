// The frame around all pages: navigation, scheme, token, and which page the address means.

import { html, render, useEffect, useRef, useState } from './view.js';
import { usePlace } from './place.js';
import { loadSession, logOut, may, session, setToken, token } from './api.js';
import { useDown } from './link.js';
import { atFull, away, nextZone, zone } from './words.js';
import { speak, speaks, translate } from './languages/speech.js';
import { useKeyboard } from './keyboard.js';
import { Keys, Palette } from './parts/palette.js';
import { Door } from './parts/login.js';
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
import { Audit } from './pages/audit.js';
import { Webhooks } from './pages/webhooks.js';
import { Limits } from './pages/limits.js';
import { Waits } from './pages/waits.js';
import { Charts } from './pages/charts.js';
import { Tokens } from './pages/tokens.js';
import { Inboxes } from './pages/inboxes.js';

const PAGES = [
  ['overview', 'Overview', Overview],
  ['charts', 'Charts', Charts],
  ['tasks', 'Tasks', TaskList],
  ['submit', 'Submit', Submit, 'submit'],
  ['errors', 'Errors', Errors],
  ['dead-letters', 'Dead letters', DeadLetters],
  ['queues', 'Queues', Queues],
  ['limits', 'Limits', Limits],
  ['workers', 'Workers', Workers],
  ['schedules', 'Schedules', Schedules],
  ['waits', 'Waits', Waits],
  ['incidents', 'Incidents', Incidents],
  ['webhooks', 'Webhooks', Webhooks, 'admin'],
  ['inboxes', 'Inboxes', Inboxes, 'admin'],
  ['tokens', 'Tokens', Tokens, 'admin'],
  ['audit', 'Audit', Audit, 'admin'],
];

/** A page that only some may use stands only there. */
const pages = () => PAGES.filter(([, , , scope]) => !scope || may(scope));

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
  return html`<${Dialog} title="Access token" onClose=${onClose} action=${keep} actionText="Use it" focus="field">
    <label class="field">A token (tg_…) with the scopes that you need. It is kept until this tab is closed.
      <input type="password" autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
  <//>`;
}

/** Who is logged in, and the way out; where only tokens are known, the token. */
function Who({ onToken }) {
  const { who, csrf } = session();
  const leave = async () => {
    await logOut();
    location.reload();
  };
  if (csrf && !token()) return html`<span class="wrap">${who}</span><button type="button" class="link" onClick=${leave}>Log out</button>`;
  return html`<button type="button" class="link" onClick=${onToken}>Token</button>`;
}

/** Since when nothing answers. What is shown is from before, and looks like it. */
function Down() {
  const since = useDown();
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = since && setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, [since]);
  return since && html`<div class="down" role="alert">The gateway has not answered since <time datetime=${since.toISOString()}>${atFull(since)}</time> (${away(since)}). What is shown is from then; trying again.</div>`;
}

function Side({ page, onToken, onKeys }) {
  const [shown, setShown] = useState(scheme());
  const turn = () => setShown(nextScheme());
  return html`<nav class="side" aria-label="Pages">
    <a class="brand" href="#/"><img src="icon.svg" alt="" />taskgate</a>
    <div class="pages"><ul>${pages().map(([id, name]) => html`<li key=${id}><a href="#/${id}" aria-current=${id === page ? 'page' : undefined}>
      <${Icon} of=${id} />${name}${id === 'incidents' && html`<${Incidental} />`}</a></li>`)}</ul></div>
    <div class="foot">
      <button type="button" class="link" onClick=${onKeys}>Keys <kbd>?</kbd></button>
      <a href="../swagger-ui/">API</a>
      <${Who} onToken=${onToken} />
      <button type="button" class="link" onClick=${turn} aria-label="Colours: ${translate(shown)}"><${Icon} of=${shown} />${shown}</button>
      <button type="button" class="link" onClick=${nextZone} aria-label="Clock: ${translate(zone() === 'UTC' ? 'UTC' : 'local time')}">${zone() === 'UTC' ? 'UTC' : 'local time'}</button>
      <button type="button" class="link" lang=${speaks === 'ko' ? 'en' : 'ko'} onClick=${() => speak(speaks === 'ko' ? 'en' : 'ko')}>${speaks === 'ko' ? 'English' : '한국어'}</button>
    </div>
  </nav>`;
}

function App() {
  const place = usePlace();
  const [asksToken, setAsksToken] = useState(false);
  const [opened, setOpened] = useState(null);
  useKeyboard(setOpened);
  const main = useRef(null);
  const moved = useRef(false);
  const known = pages().find(([id]) => id === place.page);
  const title = place.rest[0] ? `${place.rest[0]} · ${known?.[1]}` : known?.[1];
  useEffect(() => {
    document.title = `${translate(title || 'Not found')} · taskgate`;
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
    <${Down} />
    <div class="shell">
      <${Side} page=${place.page} onToken=${() => setAsksToken(true)} onKeys=${() => setOpened('keys')} />
      <main id="main" tabindex="-1" ref=${main}>
        ${Page ? html`<${Page} key=${place.page + place.rest.join('/')} place=${place} />` : html`<h1>There is no such page</h1>`}
      </main>
    </div>
    ${asksToken && html`<${TokenDialog} onClose=${() => setAsksToken(false)} />`}
    ${opened === 'keys' && html`<${Keys} onClose=${() => setOpened(null)} />`}
    ${opened === 'palette' && html`<${Palette} pages=${pages()} onClose=${() => setOpened(null)} />`}
    <${Toasts} />
  </div>`;
}

keepScheme();
const root = document.getElementById('app');
const { authenticated } = await loadSession();
root.replaceChildren();
render(authenticated ? html`<${App} />` : html`<${Door} />`, root);
