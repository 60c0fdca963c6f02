// What a task logs, as it comes. Only the newest lines are in the page; all of them are a link away.

import { html, useEffect, useRef, useState } from '../view.js';
import { segment } from '../api.js';
import { follow } from '../stream.js';

const SHOWN = 2000;

function useLog(id) {
  const [state, setState] = useState({ lines: [], left: 0, ended: false });
  useEffect(() => {
    setState({ lines: [], left: 0, ended: false });
    return follow(`/v1/tasks/${segment(id)}/logs`, {
      onBatch: (batch) => {
        const news = batch.filter((one) => one.event === 'line').map((one) => one.data);
        const ended = batch.some((one) => one.event === 'end');
        setState((before) => {
          const all = [...before.lines, ...news];
          const gone = Math.max(0, all.length - SHOWN);
          return { lines: all.slice(gone), left: before.left + gone, ended: before.ended || ended };
        });
      },
    });
  }, [id]);
  return state;
}

const tone = (level) => ({ ERROR: 'bad', CRITICAL: 'bad', WARNING: 'warn', NOTE: 'quiet' })[level] || '';

/** The log of one task; follows it until its end. */
export function TaskLog({ id }) {
  const { lines, left, ended } = useLog(id);
  const pane = useRef(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (pane.current && atEnd.current) pane.current.scrollTop = pane.current.scrollHeight;
  }, [lines]);
  const onScroll = ({ currentTarget: view }) => { atEnd.current = view.scrollHeight - view.scrollTop - view.clientHeight < 40; };
  if (lines.length === 0) {
    return html`<p class="quiet">${ended ? 'It logged nothing that reached the gateway.' : 'Nothing was logged yet.'}</p>`;
  }
  return html`<div class="stack">
    ${left > 0 && html`<p class="small quiet">${left} earlier lines are not shown.</p>`}
    <pre class="json" ref=${pane} onScroll=${onScroll} tabindex="0" role="log" aria-label="log">${lines.map((line) => html`<span
      key=${line.no} class=${tone(line.level)}><time class="quiet">${line.at.slice(11, 23)}</time> ${line.level.padEnd(7)} ${line.text}${'\n'}</span>`)}</pre>
  </div>`;
}
