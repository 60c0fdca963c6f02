// Calls of the public API. Addresses are relative to this file, so any base path in front of the gateway works.

import { answered, silent } from './link.js';

const ROOT = new URL('../../', import.meta.url);
const TOKEN = 'taskgate-token';

/** What the gateway refused, as its RFC 9457 document says it. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
    this.places = problem.errors || [];
  }
}

export function address(path, query) {
  const url = new URL(path.replace(/^\//, ''), ROOT);
  for (const [name, value] of Object.entries(query || {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== '') url.searchParams.append(name, one);
    }
  }
  return url;
}

/** One path segment. */
export const segment = encodeURIComponent;

export function token() {
  return sessionStorage.getItem(TOKEN);
}

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

export function headers(more) {
  const all = new Headers(more);
  if (token()) all.set('Authorization', `Bearer ${token()}`);
  return all;
}

const EVERYTHING = { authenticated: true, who: null, scopes: ['submit', 'read', 'control', 'admin'], csrf: null, login: {} };
let known = EVERYTHING;

/** Who is here and what they may do, as the gateway said it last. */
export const session = () => known;

/** What the reader may not do has no button. */
export const may = (scope) => known.scopes.includes(scope);

/** Asks who is here. A gateway that cannot be asked shows its pages, which say what is wrong. */
export async function loadSession() {
  try {
    known = await get('/v1/session');
  } catch {
    known = EVERYTHING;
  }
  return known;
}

export async function logIn(user, password) {
  known = await post('/v1/session', { user, password });
}

export async function logOut() {
  setToken(null);
  await remove('/v1/session');
}

/** A fetch that notes whether somebody answers. */
async function reached(url, options) {
  try {
    const response = await fetch(url, options);
    if (![502, 504].includes(response.status)) answered();
    else silent();
    return response;
  } catch (error) {
    if (error.name !== 'AbortError') silent();
    throw error;
  }
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText || 'no answer that can be read' };
  }
}

export async function call(method, path, { query, body, signal, more } = {}) {
  const sent = headers(more || { Accept: 'application/json' });
  if (body !== undefined) sent.set('Content-Type', 'application/json');
  // What changes something carries the word that only a page of this gateway knows.
  if (method !== 'GET' && known.csrf && !token()) sent.set('X-CSRF-Token', known.csrf);
  const response = await reached(address(path, query), {
    method, signal, headers: sent, body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.status === 401) dispatchEvent(new CustomEvent('taskgate:token'));
  if (!response.ok) throw new Refused(response.status, await problemOf(response));
  return response.status === 204 ? null : response.json();
}

export const get = (path, query, signal) => call('GET', path, { query, signal });
export const post = (path, body = {}) => call('POST', path, { body });
export const put = (path, body) => call('PUT', path, { body });
export const patch = (path, body) => call('PATCH', path, { body });
export const remove = (path, query) => call('DELETE', path, { query });
