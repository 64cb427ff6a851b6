// Numbers, durations and times as people read them. Pure: knows no page and no API.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const NONE = '–';

/** A count: `12,345`. */
export function count(n) {
  return Number.isFinite(n) ? whole.format(n) : NONE;
}

/** Something each second: `0.05/s`, `2.5/s`, `1,240/s`. */
export function rate(n) {
  if (!Number.isFinite(n)) return NONE;
  if (n === 0) return '0/s';
  if (n < 0.01) return '<0.01/s';
  if (n < 1) return `${n.toFixed(2)}/s`;
  if (n < 100) return `${n.toFixed(1)}/s`;
  return `${whole.format(n)}/s`;
}

/** The part of a whole in per cent, `none` where nothing is. */
export function percent(part, all, none = NONE) {
  if (!(all > 0)) return none;
  const share = (100 * part) / all;
  if (share === 0) return '0 %';
  if (share < 1) return '<1 %';
  return `${share < 10 ? share.toFixed(1) : Math.round(Math.min(share, 100))} %`;
}

/** Milliseconds: `0.4 ms`, `12 ms`, `1.2 s`, `2 min 5 s`. */
export function ms(n) {
  if (n === null || n === undefined || !Number.isFinite(n)) return NONE;
  if (n < 10) return `${n.toFixed(1)} ms`;
  if (n < 1000) return `${Math.round(n)} ms`;
  if (n < 10_000) return `${(n / 1000).toFixed(1)} s`;
  return age(n / 1000);
}

/** A quantile in milliseconds; where it is only a bound, `<0.5 ms` or `>5 min`. */
export function quantile(n, bound) {
  return `${{ below: '<', above: '>' }[bound] ?? ''}${ms(n)}`;
}

/** Seconds: `12 s`, `3 min 4 s`, `2 h 5 min`, `3 d 4 h`. */
export function age(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return pair(s, 60, 'min', 's');
  if (s < 86_400) return pair(Math.floor(s / 60), 60, 'h', 'min');
  return pair(Math.floor(s / 3600), 24, 'd', 'h');
}

function pair(n, base, large, small) {
  const rest = n % base;
  return `${Math.floor(n / base)} ${large}${rest ? ` ${rest} ${small}` : ''}`;
}

/** The local time of day: `18:20:31`, or with thousandths. */
export function clock(time, thousandths = false) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return NONE;
  const two = (n) => String(n).padStart(2, '0');
  const text = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return thousandths ? `${text}.${String(date.getMilliseconds()).padStart(3, '0')}` : text;
}

/** `1 route`, `2 routes`. */
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** The reason of a failed call as people say it; errors of JSON-RPC are numbers. */
export function errorText(error) {
  if (!error) return '';
  if (/^-\d+$/.test(error)) return `JSON-RPC ${error}`;
  if (/^[1-5]\d\d$/.test(error)) return `HTTP ${error}`;
  return error.replaceAll('_', ' ');
}
