// Starts the page: the stream of `sight`, the views and their tabs, the filter they share, and what is said while the
// proxy is away. Each view is told when it is shown, and when there is something new.

import { Calls } from './calls.js';
import { Sparkline } from './chart.js';
import { el, setAttribute, setText } from './dom.js';
import { Explain } from './explain.js';
import { Filter } from './filter.js';
import { clock, count, percent, rate } from './format.js';
import { Graph } from './graph.js';
import { History } from './history.js';
import { Feed } from './live.js';
import { Panel } from './panel.js';
import { Routes } from './routes.js';
import { Sessions } from './sessions.js';
import { Streams } from './streams.js';
import { Tabs } from './tabs.js';
import { Tools } from './tools.js';
import { edgeKey, toolKey } from './words.js';

const VIEWS = [
  ['graph', 'Graph', Graph],
  ['tools', 'Tools', Tools],
  ['calls', 'Calls', Calls],
  ['streams', 'Streams', Streams],
  ['sessions', 'Sessions', Sessions],
  ['routes', 'Routes', Routes],
  ['explain', 'Explain', Explain],
];
/** Views that show nothing before the first `sight`. */
const OF_SIGHT = ['graph', 'tools', 'streams', 'sessions'];
/** Milliseconds of silence after which the proxy is taken for gone; it speaks each second. */
const QUIET = 4000;
/** Milliseconds after which a hidden page lets its connection go: a browser has six for one origin. */
const HIDDEN = 60_000;
/** Names that are suggested in a field. */
const SUGGESTED = 500;

const byId = (id) => document.getElementById(id);
const past = new History();

const app = {
  /** The last `sight`, null before the first. */
  sight: null,
  filter: new Filter(VIEWS.map(([id]) => id)),
  panel: new Panel(byId('panel')),
  /** Methods and tools that have been seen. */
  known: { method: new Set(), tool: new Set() },
  /** Times, rates and errors each second over the last minutes, the sum of some keys. */
  series(...keys) {
    const sum = (suffix) =>
      keys
        .map((key) => past.series(key + suffix))
        .reduce((a, b) => a.map((value, at) => plus(value, b[at])), past.series(''));
    return [past.times(), sum(''), sum('!')];
  },
  go(view) {
    app.filter.set({ view });
  },
  explain(question) {
    app.panel.close();
    app.filter.set({ view: 'explain' });
    views.get('explain').about(question);
  },
};

function plus(a, b) {
  return a === null ? b : b === null ? a : a + b;
}

const views = new Map(VIEWS.map(([id, , View]) => [id, new View(app, byId(`view-${id}`))]));
const tabs = new Tabs(byId('tabs'), VIEWS, (id) => app.go(id));
const lines = { total: new Sparkline(byId('line-total'), 96, 26) };
let shown = null;

// === the view that is shown ===

function show(what) {
  const { view } = app.filter;
  if (view !== shown) {
    views.get(shown)?.hide?.();
    if (shown !== null) app.panel.close();
    shown = view;
    tabs.show(view);
    document.title = `${VIEWS.find(([id]) => id === view)[1]} · kagent-proxy`;
    setAttribute(document.body, 'data-view', view);
    views.get(view).show();
  } else views.get(view).update(what);
  for (const name of ['caller', 'route']) {
    const input = byId(`filter-${name}`);
    if (input.value !== app.filter[name]) input.value = app.filter[name];
  }
  byId('filter-clear').disabled = !app.filter.active;
  byId('loading').hidden = app.sight !== null || !OF_SIGHT.includes(view);
}

// === sight ===

const feed = new Feed({ url: () => 'sight', quiet: QUIET, events: { sight: take }, onState: say });

function take(said) {
  const sight = { totals: {}, edges: [], tools: [], streams: [], sessions: [], ...said };
  const first = app.sight === null;
  app.sight = sight;
  past.push(Date.parse(sight.at), entries(sight));
  if (first) setAttribute(document.body, 'data-sight', true);
  suggest(sight);
  tiles(sight);
  setText(byId('at'), clock(sight.at));
  show('sight');
}

function* entries({ totals, edges, tools }) {
  yield ['total', totals.rate];
  yield ['total!', totals.errorRate];
  for (const edge of edges) {
    yield [`edge:${edgeKey(edge)}`, edge.rate];
    yield [`edge:${edgeKey(edge)}!`, edge.errorRate];
  }
  for (const tool of tools) {
    yield [`tool:${toolKey(tool)}`, tool.rate];
    yield [`tool:${toolKey(tool)}!`, tool.errorRate];
  }
}

function tiles({ totals }) {
  const texts = {
    rate: rate(totals.rate),
    calls: `${count(totals.calls)} in all`,
    errors: percent(totals.errorRate, totals.rate, 'none'),
    failed: `${count(totals.errors)} in all`,
    requests: count(totals.openRequests),
    streams: count(totals.openStreams),
    routes: count(totals.routes),
    refused: `${count(totals.refusedRoutes)} not routable`,
  };
  for (const [name, text] of Object.entries(texts)) setText(byId(`tile-${name}`), text);
  const share = totals.rate > 0 ? totals.errorRate / totals.rate : 0;
  setAttribute(byId('tile-errors'), 'data-tone', share > 0.05 ? 'bad' : share > 0 ? 'warn' : null);
  lines.total.set(...app.series('total'));
}

function suggest({ edges, tools }) {
  const names = { callers: new Set(), routes: new Set(), methods: new Set(), tools: new Set() };
  for (const edge of edges) {
    names.callers.add(edge.from);
    names.routes.add(edge.to);
  }
  for (const tool of tools) {
    names.callers.add(tool.caller);
    names.routes.add(tool.route);
    if (tool.method) names.methods.add(tool.method);
    if (tool.tool) names.tools.add(tool.tool);
  }
  app.filter.known = { caller: names.callers, route: names.routes };
  app.known = { method: names.methods, tool: names.tools };
  for (const [name, values] of Object.entries(names)) {
    const list = byId(`known-${name}`);
    const wanted = [...values].sort().slice(0, SUGGESTED);
    const same =
      list.children.length === wanted.length && wanted.every((value, at) => list.children[at].value === value);
    if (!same) list.replaceChildren(...wanted.map((value) => el('option', { value })));
  }
}

// === while the proxy is away ===

let was = 'off';

function say({ state, why }) {
  const words = { loading: 'Connecting', live: 'Live', away: 'Away', off: 'Paused while hidden' };
  setText(byId('state'), words[state]);
  setAttribute(document.body, 'data-state', state);
  const away = byId('away');
  if (state === 'away') {
    const words = [why ? `The proxy refuses: ${why}` : 'The proxy does not answer.'];
    if (app.sight !== null) words.push(`What is shown is what it said last, at ${clock(app.sight.at)}.`);
    setText(byId('away-text'), `${words.join(' ')} It is asked again every few seconds.`);
  }
  away.hidden = state !== 'away';
  if (state === 'live' && was === 'away') views.get(shown)?.retry?.();
  was = state;
}

byId('away-now').addEventListener('click', () => feed.retry());

let hiding = null;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      feed.stop();
      views.get(shown)?.hide?.();
    }, HIDDEN);
  } else if (feed.state.state === 'off') {
    feed.start();
    views.get(shown)?.show();
  }
});

// === the filter, and the skip link ===

// The part of the address behind # is the view's.
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('main').focus();
});

for (const name of ['caller', 'route']) {
  byId(`filter-${name}`).addEventListener('input', (event) =>
    app.filter.set({ [name]: event.target.value.trim() }, true),
  );
}
byId('filter-clear').addEventListener('click', () => app.filter.set({ caller: '', route: '' }));
app.filter.addEventListener('change', () => show('filter'));

show('filter');
feed.start();
