// Calls of the public API. Addresses are relative to this file, so any base path in front of the gateway works.

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
  const response = await fetch(address(path, query), {
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
