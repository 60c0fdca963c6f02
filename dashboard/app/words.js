// Numbers, times and phases in words.

import { say, speaks, translate } from './languages/speech.js';

const ZONE = 'taskgate-zone';

/** `local` or `UTC`: whose clock times are shown by. */
export const zone = () => (localStorage.getItem(ZONE) === 'UTC' ? 'UTC' : 'local');

export function nextZone() {
  localStorage.setItem(ZONE, zone() === 'UTC' ? 'local' : 'UTC');
  location.reload();
}

const LOCALE = speaks === 'ko' ? 'ko-KR' : 'en-GB';
const shared = zone() === 'UTC' ? { timeZone: 'UTC' } : {};
const number = new Intl.NumberFormat(speaks);
const clock = new Intl.DateTimeFormat(LOCALE, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', ...shared });
const day = new Intl.DateTimeFormat(LOCALE, { day: '2-digit', month: 'short', ...shared });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: 'medium', timeStyle: 'long', ...shared });

export const PHASES = [
  'accepted', 'held', 'waiting', 'queued', 'received', 'running', 'retrying',
  'succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored',
];
const TONES = {
  running: 'busy', received: 'busy', retrying: 'warn', held: 'warn', succeeded: 'good', failed: 'bad', lost: 'bad', expired: 'warn', ignored: 'warn',
};
export const FINAL = new Set(['succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored']);

/** A phase in a sentence. */
export const phaseWord = (phase) => translate(phase);

/** The colour of a phase: good, bad, warn, busy or none. */
export const tone = (phase) => (Object.hasOwn(TONES, phase) ? TONES[phase] : '');

export const count = (value) => (value === null || value === undefined ? '–' : number.format(value));

/** Units of time, as they stand behind a number. */
const UNITS = speaks === 'ko' ? { ms: '밀리초', s: '초', min: '분', h: '시간', d: '일' } : { ms: ' ms', s: ' s', min: ' min', h: ' h', d: ' d' };
const two = (number_) => String(number_).padStart(2, '0');

/** Seconds, short: `40 ms`, `3.2 s`, `5 min 20 s`, `2 h 05 min`, `3 d 4 h`. */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value < 0) return `−${seconds(-value)}`;
  if (value > 0 && value < 0.001) return `< 1${UNITS.ms}`;
  if (value < 1) return `${Math.round(value * 1000)}${UNITS.ms}`;
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)}${UNITS.s}`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)}${UNITS.min} ${two(whole % 60)}${UNITS.s}`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}${UNITS.h} ${two(Math.floor((whole % 3600) / 60))}${UNITS.min}`;
  return `${Math.floor(whole / 86400)}${UNITS.d} ${Math.floor((whole % 86400) / 3600)}${UNITS.h}`;
}

/** The time of day; with the day when it is another one. */
export function at(text) {
  if (!text) return '–';
  const time = new Date(text);
  const today = day.format(new Date()) === day.format(time);
  return today ? clock.format(time) : `${day.format(time)} ${clock.format(time)}`;
}

export const atFull = (text) => (text ? full.format(new Date(text)) : '');

/** A sentence with its RFC 3339 times as the reader's clock shows them. */
export const localTimes = (text) => text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, at);

/** `in 5 min`, `3 s ago`. */
export function away(text) {
  if (!text) return '–';
  const secs = (new Date(text) - Date.now()) / 1000;
  return secs >= 0 ? say('in {time}', { time: seconds(secs) }) : say('{time} ago', { time: seconds(-secs) });
}

export const between = (from, to) => (from && to ? (new Date(to) - new Date(from)) / 1000 : null);

export const short = (id) => (id && id.length > 13 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

export const percent = (part) => (part === null || part === undefined ? '–' : `${(part * 100).toFixed(part < 0.1 ? 1 : 0)} %`);

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `512 B`, `37 MiB`, `1.5 GiB`. */
export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const power = Math.min(BYTES.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  const amount = value / 1024 ** power;
  return `${amount < 10 && amount % 1 ? amount.toFixed(1) : Math.round(amount)} ${BYTES[power]}`;
}

/** A value as people read it. Large numbers keep the digits that JavaScript keeps. */
export const json = (value) => JSON.stringify(value, null, 2);
