// Whether the gateway answers, and since when it does not. Pages keep what they showed; the frame says how old it is.

import { useEffect, useState } from './view.js';

let downSince = null;

function turn(value) {
  if ((downSince === null) === (value === null)) return;
  downSince = value;
  document.documentElement.toggleAttribute('data-stale', value !== null);
  dispatchEvent(new CustomEvent('taskgate:link'));
}

/** An answer came, whatever it says. */
export const answered = () => turn(null);

/** No answer came: the gateway, its proxy or the network is away. */
export const silent = () => turn(downSince ?? new Date());

/** Since when nothing answers; null while something does. */
export function useDown() {
  const [since, setSince] = useState(downSince);
  useEffect(() => {
    const look = () => setSince(downSince);
    addEventListener('taskgate:link', look);
    return () => removeEventListener('taskgate:link', look);
  }, []);
  return since;
}
