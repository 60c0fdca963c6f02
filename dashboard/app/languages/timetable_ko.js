// A cron expression in Korean, which says the largest unit first: month, day, weekday, hour, minute.

const DAYS = ['일', '월', '화', '수', '목', '금', '토'];
const SHORT_DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];
const SHORT_MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const isNumber = (text) => /^\d+$/.test(text);

function said(field, name, unit) {
  return field.split(',').map((part) => {
    const [range, step] = part.split('/');
    const [from, to] = range.split('-');
    const base = range === '*' ? '' : to ? `${name(from)}~${name(to)}` : name(from);
    return step ? `${base ? `${base}부터 ` : ''}${step}${unit}마다` : base;
  }).join(', ');
}

const number = (unit) => (text) => `${text}${unit}`;
const weekday = (text) => `${DAYS[isNumber(text) ? Number(text) % 7 : SHORT_DAYS.indexOf(text.slice(0, 3).toLowerCase())] ?? '?'}요일`;
const month = (text) => `${isNumber(text) ? text : SHORT_MONTHS.indexOf(text.slice(0, 3).toLowerCase()) + 1}월`;

function clock(minute, hour) {
  if (isNumber(minute) && hour.split(',').every(isNumber)) return hour.split(',').map((one) => `${one.padStart(2, '0')}:${minute.padStart(2, '0')}`).join(', ');
  const minutes = minute === '*' ? '매분' : said(minute, number('분'), '분');
  if (hour === '*') return minute === '*' || minute.startsWith('*/') ? minutes : `매시간 ${minutes}`;
  return `${said(hour, number('시'), '시간')} ${minutes}`;
}

/** Null when it is none of five fields. */
export function koreanCron(text) {
  const fields = String(text || '').trim().split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, day, months, days] = fields;
  const when = [];
  if (months !== '*') when.push(said(months, month, '개월'));
  if (day !== '*') when.push(`매월 ${said(day, number('일'), '일')}`);
  if (days !== '*') when.push(said(days, weekday, '일'));
  when.push(clock(minute, hour));
  return when.join(' ');
}
