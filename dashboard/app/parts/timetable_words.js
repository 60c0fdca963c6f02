// A timetable in words: what `0 */2 * * 1-5` means, as people say it.

import { speaks } from '../languages/speech.js';
import { koreanCron } from '../languages/timetable_ko.js';

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const SHORT_DAYS = DAYS.map((day) => day.slice(0, 3).toLowerCase());
const SHORT_MONTHS = MONTHS.map((month) => month.slice(0, 3).toLowerCase());

const two = (number) => String(number).padStart(2, '0');
const list = (words) => (words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);
const isNumber = (text) => /^\d+$/.test(text);

/** 1st, 2nd, 3rd, 4th, 11th, 21st. */
export function ordinal(number) {
  const tens = number % 100;
  const end = tens > 10 && tens < 14 ? 'th' : ['th', 'st', 'nd', 'rd'][number % 10] || 'th';
  return `${number}${end}`;
}

/** A field that is not `*`, part by part. */
function said(field, name, shorts = []) {
  const one = (text) => name(isNumber(text) ? Number(text) : shorts.indexOf(text.slice(0, 3).toLowerCase()));
  return list(field.split(',').map((part) => {
    const [range, step] = part.split('/');
    const [from, to] = range.split('-');
    const base = range === '*' ? '' : to ? `${one(from)} to ${one(to)}` : one(from);
    return step ? `every ${step}${base ? ` from ${base}` : ''}` : base;
  }));
}

function clock(minute, hour) {
  if (isNumber(minute) && hour.split(',').every(isNumber)) return `at ${list(hour.split(',').map((one) => `${two(one)}:${two(minute)}`))}`;
  const minutes = minute === '*' ? 'every minute' : minute.startsWith('*/') ? `every ${minute.slice(2)} minutes` : `at minute ${said(minute, String)}`;
  if (hour === '*') return minute === '*' || minute.startsWith('*/') ? minutes : `${minutes} of every hour`;
  if (hour.startsWith('*/')) return `${minutes} of every ${ordinal(Number(hour.slice(2)))} hour`;
  return `${minutes}, from hour ${said(hour, String)}`;
}

/** A cron expression in words; null when it is none of five fields. */
export function cronWords(text) {
  if (speaks === 'ko') return koreanCron(text);
  const fields = String(text || '').trim().split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, day, month, weekday] = fields;
  const when = [clock(minute, hour)];
  if (day !== '*') when.push(`on day ${said(day, String)} of the month`);
  if (weekday !== '*') when.push(`on ${said(weekday, (number) => DAYS[number % 7] ?? '?', SHORT_DAYS)}`);
  if (month !== '*') when.push(`in ${said(month, (number) => MONTHS[(number < 0 ? 0 : isNumber(month.split(/[,/-]/)[0]) ? number - 1 : number)] ?? '?', SHORT_MONTHS)}`);
  return when.join(', ');
}

/** Of a schedule: its cron, its interval or its time. */
export function timetableWords(schedule) {
  if (schedule.cron) {
    const words = cronWords(schedule.cron);
    return words && `${words}${schedule.timezone ? `, ${schedule.timezone}` : ''}`;
  }
  if (speaks === 'ko' && typeof schedule.every === 'number') return `${schedule.every}초마다, 첫 실행은 저장하고 한 간격 뒤`;
  if (speaks === 'ko' && schedule.at) return `한 번, ${schedule.at}`;
  if (typeof schedule.every === 'number') return `every ${schedule.every} seconds, the first time one interval after it is saved`;
  return schedule.at ? `once, at ${schedule.at}` : null;
}
