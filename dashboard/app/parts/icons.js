// Line drawings, 16 by 16, in the colour of the text beside them.

import { html } from '../view.js';

const PATHS = {
  overview: 'M2 13V8M6 13V3M10 13V6M14 13V9',
  charts: 'M2 2v12h12M4.5 10.5 7 7l2.5 2L13 4',
  limits: 'M2 12a6 6 0 1 1 12 0M8 12l3-4M2 12h2M12 12h2',
  waits: 'M4 2h8M4 14h8M5 2v2.5L8 8l3-3.5V2M5 14v-2.5L8 8l3 3.5V14',
  inboxes: 'M2 9.5 4.2 3h7.6L14 9.5V13H2V9.5ZM2 9.5h3.5l1 1.7h3l1-1.7H14M8 1v5M6 4.2 8 6l2-1.8',
  tokens: 'M6 10a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM8.6 8.2 14 13.6M11.5 11l1.5-1.5',
  tasks: 'M2 4h1M6 4h8M2 8h1M6 8h8M2 12h1M6 12h8',
  submit: 'M2 8h9M7.5 4.5 11 8l-3.5 3.5M14 2.5v11',
  errors: 'M8 2 1.5 13.5h13L8 2ZM8 6.5v3M8 11.6v.1',
  'dead-letters': 'M2 4h12v9H2V4ZM2 4.5l6 4.5 6-4.5',
  queues: 'M2 3h12v3H2V3ZM2 10h12v3H2v-3ZM4.5 6v4M11.5 6v4',
  workers: 'M4.5 4.5h7v7h-7v-7ZM6.5 4.5v-3M9.5 4.5v-3M6.5 14.5v-3M9.5 14.5v-3M4.5 6.5h-3M4.5 9.5h-3M14.5 6.5h-3M14.5 9.5h-3',
  schedules: 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 4.8V8l2.2 1.6',
  incidents: 'M4 11V7.2a4 4 0 0 1 8 0V11l1.5 1.5h-11L4 11ZM6.6 14.2h2.8',
  webhooks: 'M2.5 13.5 6 8.2M6.5 3.5a2.5 2.5 0 1 1 2.6 4L11 11M4.5 13.2h7M11.2 11a2.3 2.3 0 1 1-1.5 3.6',
  audit: 'M3 2h7l3 3v9H3V2ZM5.5 8h5M5.5 11h5M5.5 5h2',
  copy: 'M5.5 5.5h8v8h-8v-8ZM10.5 5.5v-3h-8v8h3',
  good: 'M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13ZM5 8.2l2.1 2.1L11 6.2',
  none: 'M2 9.5 4.2 3h7.6L14 9.5V13H2V9.5ZM2 9.5h3.5l1 1.7h3l1-1.7H14',
  system: 'M2 3h12v8H2V3ZM6 14h4M8 11v3',
  light: 'M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M3.2 12.8l1.1-1.1M11.7 4.3l1.1-1.1',
  dark: 'M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1Z',
  close: 'M4 4l8 8M12 4l-8 8',
};

export const Icon = ({ of: glyph }) => html`<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.4"
  stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${PATHS[glyph]} /></svg>`;

/** Where a list has nothing to show: what that means, and what to do next. */
export const Empty = ({ title, kind = '', children }) => html`<div class="empty ${kind}">
  <${Icon} of=${kind === 'good' ? 'good' : 'none'} /><strong>${title}</strong>${children}</div>`;
