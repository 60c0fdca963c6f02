// Data that a page shows: loaded once, again on demand, and again every few seconds where nothing streams.

import { useCallback, useEffect, useRef, useState } from './view.js';
import { get } from './api.js';

/**
 * `{data, error, reload}` of a GET. The old data stays while new data of the same path is on its way, also with another query.
 * `everyMs`: again after this pause, while the page is visible.
 */
export function useLoaded(path, query, { everyMs = 0 } = {}) {
  const [state, setState] = useState({ data: null, error: null });
  const key = path && JSON.stringify([path, query]);
  const current = useRef(null);
  const shown = useRef(path);

  const reload = useCallback(async () => {
    if (!path) return null;
    current.current?.abort();
    const abort = new AbortController();
    current.current = abort;
    try {
      const data = await get(path, query, abort.signal);
      if (!abort.signal.aborted) setState({ data, error: null });
      return data;
    } catch (error) {
      if (!abort.signal.aborted) setState((before) => ({ data: before.data, error }));
      return null;
    }
  }, [key]);

  useEffect(() => {
    // Never one thing's data under another one's name.
    if (shown.current !== path) setState({ data: null, error: null });
    shown.current = path;
    reload();
    const timer = everyMs ? setInterval(() => document.hidden || reload(), everyMs) : null;
    return () => {
      clearInterval(timer);
      current.current?.abort();
    };
  }, [key]);
  return { ...state, reload };
}

/** Counts up every few seconds while the page is visible: what asks for times until now takes it into its query. */
export function useTurn(everyMs) {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTurn((before) => before + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return turn;
}
