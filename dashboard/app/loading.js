// Data that a page shows: loaded once, again on demand, and again every few seconds where nothing streams.

import { useCallback, useEffect, useRef, useState } from './view.js';
import { get } from './api.js';

/**
 * `{data, error, reload}` of a GET. The old data stays while new data is on its way.
 * `everyMs`: again after this pause, while the page is visible.
 */
export function useLoaded(path, query, { everyMs = 0 } = {}) {
  const [state, setState] = useState({ data: null, error: null });
  const key = path && JSON.stringify([path, query]);
  const current = useRef(null);

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
    setState({ data: null, error: null });
    reload();
    const timer = everyMs ? setInterval(() => document.hidden || reload(), everyMs) : null;
    return () => {
      clearInterval(timer);
      current.current?.abort();
    };
  }, [key]);
  return { ...state, reload };
}
