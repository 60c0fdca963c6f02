// Data that a page shows: loaded once, again on demand, and again every few seconds where nothing streams.

import { useCallback, useEffect, useRef, useState } from './view.js';
import { get } from './api.js';

/**
 * `{data, error, reload}` of a GET. While another query is on its way nothing is shown, unless it is about the `same` thing: of a range of
 * times that moves on, or of the next page of a list, what is there stays until the new data comes.
 * `everyMs`: again after this pause, while the page is visible.
 */
export function useLoaded(path, query, { everyMs = 0, same } = {}) {
  const key = path && JSON.stringify([path, query]);
  // Never one thing's data under another one's name.
  const thing = same === undefined ? key : JSON.stringify([path, same]);
  const [state, setState] = useState({ thing, data: null, error: null });
  const current = useRef(null);
  // Whoever keeps an old `reload` loads what is shown now.
  const wanted = useRef(null);
  wanted.current = { path, query, thing };

  const reload = useCallback(async () => {
    current.current?.abort();
    const { path: place, query: asked, thing: named } = wanted.current;
    if (!place) return null;
    const abort = new AbortController();
    current.current = abort;
    try {
      const data = await get(place, asked, abort.signal);
      if (!abort.signal.aborted) setState({ thing: named, data, error: null });
      return data;
    } catch (error) {
      if (!abort.signal.aborted) setState((before) => ({ thing: named, data: before.thing === named ? before.data : null, error }));
      return null;
    }
  }, []);

  useEffect(() => {
    reload();
    const timer = everyMs ? setInterval(() => document.hidden || reload(), everyMs) : null;
    return () => {
      clearInterval(timer);
      current.current?.abort();
    };
  }, [key]);
  const shown = state.thing === thing ? state : { data: null, error: null };
  return { data: shown.data, error: shown.error, reload };
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
