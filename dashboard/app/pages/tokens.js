// Who may call, and until when. Tokens are made on the command line; here one is taken back.

import { html, useState } from '../view.js';
import { remove, segment } from '../api.js';
import { useLoaded } from '../loading.js';
import { say } from '../languages/speech.js';
import { Name, Time, Trouble } from '../parts/basics.js';
import { Dialog } from '../parts/dialog.js';
import { Empty } from '../parts/icons.js';
import { attempt } from '../parts/toasts.js';

const TONES = { valid: 'good', expired: 'warn', revoked: 'bad' };

const Row = ({ token, onRevoke }) => html`<tr><td class="wrap"><${Name} text=${token.name} /></td>
  <td><span class="phase ${Object.hasOwn(TONES, token.state) ? TONES[token.state] : ''}">${token.state}</span></td>
  <td class="wrap" translate=${false}>${token.scopes.join(', ')}</td><td class="wrap small" translate=${false}>${token.tasks.join(', ') || '*'}</td>
  <td class="nowrap" data-name="made"><${Time} value=${token.created_at} /></td><td class="nowrap" data-name="until"><${Time} value=${token.expires_at} /></td>
  <td class="nowrap" data-name="last used"><${Time} value=${token.last_used_at} /></td>
  <td class="actions">${token.state === 'valid' && html`<div class="row"><button type="button" class="danger" aria-label="Revoke… ${token.name}" onClick=${() => onRevoke(token)}>Revoke…</button></div>`}</td></tr>`;

export function Tokens() {
  const { data, error, reload } = useLoaded('/v1/tokens', undefined, { everyMs: 10000 });
  const [asks, setAsks] = useState(null);
  const list = data?.tokens || [];
  const revoke = async () => {
    await attempt(() => remove(`/v1/tokens/${segment(asks.id)}`), () => say('{name} is revoked', { name: asks.name }));
    reload();
  };
  return html`<div class="stack">
    <div class="head"><h1>Tokens</h1></div>
    <${Trouble} error=${error} what="list of tokens" />
    ${data && list.length === 0 && html`<${Empty} title="There is no token yet">A token lets a program call this gateway.<//>`}
    ${list.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Tokens"><table class="folds">
      <thead><tr><th>Name</th><th>State</th><th>Scopes</th><th>Tasks</th><th>Made</th><th>Valid until</th><th>Last used</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${list.map((token) => html`<${Row} key=${token.id} token=${token} onRevoke=${setAsks} />`)}</tbody></table></div>`}
    <p class="small quiet">A new one is made where the ledger is: <code>taskgate token create --name ci --scope submit</code></p>
    ${asks && html`<${Dialog} title=${say('Revoke {name}?', { name: asks.name })} danger actionText="Revoke" action=${revoke} onClose=${() => setAsks(null)}>
      <p>Whoever holds it is refused from now on. It cannot be made valid again.</p><//>`}
  </div>`;
}
