// The door: the provider, a name and a password, or a token, as the gateway says which of them it knows.

import { html, useState } from '../view.js';
import { address, logIn, session, setToken } from '../api.js';
import { Notice } from './basics.js';

function Password() {
  const [refused, setRefused] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    try {
      await logIn(given.user, given.password);
      location.reload();
    } catch (error) {
      setRefused(error.message);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    <label class="field"><span>Name</span><input name="user" autocomplete="username" required /></label>
    <label class="field"><span>Password</span><input name="password" type="password" autocomplete="current-password" required /></label>
    ${refused && html`<${Notice} kind="bad" live>${refused}<//>`}
    <button class="main">Log in</button>
  </form>`;
}

function Token() {
  const submit = (event) => {
    event.preventDefault();
    setToken(String(new FormData(event.target).get('token')).trim());
    location.reload();
  };
  return html`<form class="stack" onSubmit=${submit}>
    <label class="field"><span>A token (tg_…); it is kept until this tab is closed</span><input name="token" type="password" autocomplete="off" required /></label>
    <button>Use it</button>
  </form>`;
}

export function Door() {
  const { login } = session();
  const back = `/dashboard/${location.hash}`;
  return html`<div class="door"><div class="card stack">
    <h1><img src="icon.svg" alt="" /> taskgate</h1>
    ${login?.oidc && html`<a class="button main" href=${address('/v1/session/login', { to: back })}>Log in with your account</a>`}
    ${login?.password && html`<${Password} />`}
    ${login?.oidc || login?.password ? html`<details><summary>Use a token</summary><${Token} /></details>` : html`<${Token} />`}
  </div></div>`;
}
