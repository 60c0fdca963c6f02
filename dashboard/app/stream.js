// Server-sent events over fetch: unlike EventSource it can send a token. Resumes with Last-Event-ID after a break.
// What arrives is handed on in batches, at most one per pause: a burst of thousands costs few renders.

import { address, headers } from './api.js';

const RETRY_MS = [500, 1000, 2000, 5000];

/** Reads frames from the text so far; returns the unread rest. */
export function frames(text, each) {
  let rest = text;
  for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
    const frame = { event: 'message', data: '', id: null };
    for (const line of rest.slice(0, end).split('\n')) {
      const colon = line.indexOf(':');
      if (colon <= 0) continue;
      const name = line.slice(0, colon);
      const value = line.slice(colon + 1).replace(/^ /, '');
      if (name === 'data') frame.data += frame.data ? `\n${value}` : value;
      else if (name in frame) frame[name] = value;
    }
    rest = rest.slice(end + 2);
    if (frame.data) each(frame);
  }
  return rest;
}

/**
 * Follows a stream until the returned function is called.
 * `onBatch([{event, data, id}])`, `onState('open' | 'waiting' | 'ended' | 'refused', detail)`.
 */
export function follow(path, { query, onBatch, onState = () => {}, pauseMs = 150 }) {
  const stop = new AbortController();
  let last = null;
  let batch = [];
  let timer = null;

  const flush = () => {
    timer = null;
    const ready = batch;
    batch = [];
    if (!stop.signal.aborted && ready.length) requestAnimationFrame(() => onBatch(ready));
  };
  const take = (frame) => {
    if (frame.id !== null) last = frame.id;
    batch.push({ ...frame, data: JSON.parse(frame.data) });
    timer ??= setTimeout(flush, pauseMs);
  };

  const once = async () => {
    const sent = headers({ Accept: 'text/event-stream' });
    if (last !== null) sent.set('Last-Event-ID', last);
    const response = await fetch(address(path, query), { headers: sent, signal: stop.signal });
    if (response.status === 204) return 'ended';
    if (!response.ok) {
      if (response.status >= 500 || response.status === 429) throw new Error(`HTTP ${response.status}`);
      onState('refused', `HTTP ${response.status}`);
      return 'refused';
    }
    onState('open');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let ended = false;
    for (let rest = ''; ;) {
      const { value, done } = await reader.read();
      if (done) return ended ? 'ended' : 'broken';
      rest = frames(rest + value, (frame) => {
        ended ||= frame.event === 'end' && path.startsWith('/v1/tasks/');
        take(frame);
      });
    }
  };

  (async () => {
    for (let attempt = 0; !stop.signal.aborted; attempt += 1) {
      try {
        const end = await once();
        if (end === 'ended' || end === 'refused') {
          if (end === 'ended') onState('ended');
          return;
        }
        attempt = 0;
      } catch (error) {
        if (stop.signal.aborted) return;
        onState('waiting', error.message);
      }
      await new Promise((resume) => setTimeout(resume, RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]));
    }
  })();

  return () => {
    stop.abort();
    clearTimeout(timer);
  };
}
