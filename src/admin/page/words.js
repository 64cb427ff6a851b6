// What the views call things, and the columns that several of them have. Knows the JSON of the admin API.

import { errorText, percent, quantile, rate } from './format.js';

/** The states of an edge: what is written for each, and its colour. */
export const STATES = {
  ok: { text: 'ok', tone: 'ok', means: 'calls succeed' },
  slow: { text: 'slow', tone: 'warn', means: 'p99 over 5 s in the last minute' },
  failing: { text: 'failing', tone: 'bad', means: 'more than 5 % errors in the last minute' },
  undeclared: {
    text: 'undeclared',
    tone: 'warn',
    means: 'called, though the caller declares other tools and agents only',
  },
  declared: {
    text: 'declared',
    tone: 'idle',
    means: 'declared; whether it is called cannot be said: of an Agent of kagent 1.0, or where calls are not read',
  },
  unused: { text: 'unused', tone: 'idle', means: 'declared, and never called since the proxy started' },
};

/** The state of an edge; one that a newer proxy may say is shown as it is. */
export function stateOf(edge) {
  return STATES[edge.state] ?? { text: edge.state, tone: 'idle', means: '' };
}

/** The name of an edge, as a key. */
export const edgeKey = (edge) => `${edge.from}\n${edge.to}\n${edge.protocol}`;

/** The name of a line of the tools, as a key. */
export const toolKey = (tool) => [tool.route, tool.caller, tool.protocol, tool.method, tool.tool].join('\n');

/** `yes`, `no`, or nothing where the caller declares nothing. */
export function declared(value) {
  return value === null || value === undefined ? '–' : value ? 'yes' : 'no';
}

/** The same in words. */
export function declaredWords(value) {
  return value === null || value === undefined ? 'not known: the caller declares nothing' : declared(value);
}

/** The part of calls that failed within the window, as a number from 0 to 1. */
export function errorShare(item) {
  return item.rate > 0 ? Math.min(1, item.errorRate / item.rate) : 0;
}

/** The colour for a part of failed calls: the line is that of the state `failing`. */
export function errorTone(item) {
  const share = errorShare(item);
  return share > 0.05 ? 'bad' : share > 0 ? 'warn' : '';
}

/** The colour for a latency: the line is that of the state `slow`. */
export const slowTone = (value) => (value !== null && value > 5000 ? 'warn' : '');

/** Rate, errors and latencies: the columns of edges and of tools. */
export const numbers = [
  { id: 'rate', title: 'Rate', numeric: true, width: 6, text: (row) => rate(row.rate), sort: (row) => row.rate },
  {
    id: 'errors',
    title: 'Errors',
    numeric: true,
    width: 6,
    text: (row) => percent(row.errorRate, row.rate),
    sort: errorShare,
    tone: errorTone,
  },
  {
    id: 'p50',
    title: 'p50',
    numeric: true,
    minor: true,
    width: 6,
    text: (row) => quantile(row.p50Ms, row.p50Bound),
    sort: (row) => row.p50Ms,
  },
  {
    id: 'p99',
    title: 'p99',
    numeric: true,
    minor: true,
    width: 6,
    text: (row) => quantile(row.p99Ms, row.p99Bound),
    sort: (row) => row.p99Ms,
    tone: (row) => slowTone(row.p99Ms),
  },
];

/** The outcome of a call. */
export function outcome(call) {
  if (!call.error) return 'ok';
  const status = String(call.status ?? '');
  const text = errorText(call.error);
  return call.error === status || !status || status === '200' ? text : `${text} (${status})`;
}

/** `team-a` and `parent` of `team-a/parent`, `tools` and `team-a` of `tools.team-a`: a name and where it is. */
export function parts(id) {
  const slash = id.indexOf('/');
  if (slash >= 0) return { name: id.slice(slash + 1), space: id.slice(0, slash) };
  const dot = id.indexOf('.');
  return dot > 0 ? { name: id.slice(0, dot), space: id.slice(dot + 1) } : { name: id, space: '' };
}
