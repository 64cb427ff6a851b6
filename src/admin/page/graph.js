// The view of who calls whom: the picture, a table of the same facts, and what is chosen in either.

import { RateChart } from './chart.js';
import { el, facts, notice, setText } from './dom.js';
import { Drawing } from './drawing.js';
import { count, percent, plural, quantile, rate } from './format.js';
import { MOST, chosen } from './layout.js';
import { ask } from './live.js';
import { Table } from './table.js';
import { STATES, declared, declaredWords, edgeKey, numbers, stateOf } from './words.js';

/** Milliseconds between two questions for the kinds of new nodes, doubled up to the last. */
const PAUSE = 2500;
const LONGEST_PAUSE = 60_000;

/** Pixels at the left and the right of the picture, as graph.css has them. */
const PADDING = 12;

/** What a node is, for whoever hears it. */
const KINDS = { agent: 'an agent', tools: 'tools', unknown: 'callers that are no known Agent' };

export class Graph {
  #app;
  #drawing;
  #table;
  #kinds = new Map();
  #asked = 0;
  #pause = PAUSE;
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');
  #picture = el('div', { class: 'picture' });
  #legend = legend();
  #card = el('section', { class: 'card', 'aria-label': 'What is chosen', hidden: true });
  #cardFor = '';
  #chart = null;

  constructor(app, place) {
    this.#app = app;
    this.#drawing = new Drawing((what) => this.#pick(what));
    this.#picture.append(this.#drawing.element);
    new ResizeObserver(() => this.update()).observe(this.#picture);
    this.#table = new Table({
      label: 'Who calls whom',
      sort: '-rate',
      key: edgeKey,
      open: (edge) => this.#toggle({ caller: edge.from, route: edge.to }),
      says: 'aria-pressed',
      columns: [
        { id: 'from', title: 'Caller', text: (edge) => edge.from },
        { id: 'to', title: 'Route', text: (edge) => edge.to },
        { id: 'protocol', title: 'Protocol', minor: true, width: 7, text: (edge) => edge.protocol.toUpperCase() },
        {
          id: 'state',
          title: 'State',
          width: 8,
          text: (edge) => stateOf(edge).text,
          tone: (edge) => stateOf(edge).tone,
        },
        { id: 'declared', title: 'Declared', minor: true, width: 7.5, text: (edge) => declared(edge.declared) },
        ...numbers,
        {
          id: 'calls',
          title: 'Calls',
          numeric: true,
          minor: true,
          width: 6.5,
          text: (edge) => count(edge.calls),
          sort: (edge) => edge.calls,
        },
        {
          id: 'streams',
          title: 'Streams',
          numeric: true,
          minor: true,
          width: 6.5,
          text: (edge) => count(edge.openStreams),
          sort: (edge) => edge.openStreams,
        },
      ],
    });
    this.#table.element.classList.add('under');
    place.append(
      this.#empty,
      this.#picture,
      el('div', { class: 'caption' }, this.#legend, this.#status),
      this.#card,
      this.#table.element,
    );
  }

  show() {
    this.update();
  }

  update() {
    const { sight, filter } = this.#app;
    if (!sight || filter.view !== 'graph') return;
    const edges = sight.edges;
    const fitting = edges.filter((edge) => filter.admits({ caller: edge.from, route: edge.to }));
    this.#table.set(fitting);
    this.#table.select(fitting.length === 1 && filter.active ? edgeKey(fitting[0]) : null);
    const nothing = edges.length === 0;
    this.#say(nothing);
    if (nothing) return;
    const drawn = chosen(edges.length > MOST ? fitting : edges);
    this.#picture.hidden = drawn.length === 0;
    if (drawn.length) this.#draw(drawn, new Set(fitting));
    this.#learn(drawn);
    const words = [
      fitting.length === edges.length
        ? plural(edges.length, 'edge')
        : `${count(fitting.length)} of ${plural(edges.length, 'edge')}`,
    ];
    if (drawn.length < edges.length && drawn.length === MOST)
      words.push(`the picture shows the ${MOST} that need a look most`);
    if (sight.truncated) words.push('there are more than the proxy lists');
    setText(this.#status, words.join('; '));
    this.#describe(fitting);
  }

  #say(nothing) {
    for (const node of [this.#picture, this.#legend, this.#table.element]) node.hidden = nothing;
    if (!nothing) {
      this.#empty.replaceChildren();
      return;
    }
    this.#card.hidden = true;
    setText(this.#status, '');
    if (this.#empty.firstChild) return;
    this.#empty.append(
      notice(
        'Nobody has called anything yet.',
        'An agent appears with its first call through the proxy, and what it declares as soon as discovery knows it.',
        'If agents do call: is proxy.url of kagent set to this proxy?',
      ),
    );
  }

  #draw(edges, fitting) {
    const { filter } = this.#app;
    const nodes = new Map();
    const add = (id, kind, admitted) => {
      const node = nodes.get(id) ?? { id, kind, dim: filter.active };
      if (admitted) node.dim = false;
      nodes.set(id, node);
      return id;
    };
    const drawn = edges.map((edge) => {
      const fits = fitting.has(edge);
      const to = this.#nodeOf(edge.to);
      return {
        key: edgeKey(edge),
        from: add(edge.from, this.#kinds.get(edge.from)?.kind ?? callerKind(edge.from), fits),
        to: add(to, this.#kinds.get(to)?.kind ?? 'tools', fits),
        edge,
        chosen: filter.caller === edge.from && filter.route === edge.to,
        dim: filter.active && !fits,
      };
    });
    for (const node of nodes.values()) {
      node.title = `${node.id}, ${KINDS[node.kind] ?? node.kind}`;
      const { caller, route } = this.#meaning(node.id);
      node.chosen = filter.active && filter.caller === caller && filter.route === route;
    }
    this.#drawing.draw([...nodes.values()], drawn, this.#picture.clientWidth - PADDING);
  }

  /** The node of a route: its own, or that of the agent behind it. */
  #nodeOf(route) {
    return this.#kinds.get(`route ${route}`) ?? route;
  }

  /** Asks for kinds when a node is new: which agents are behind which routes does not stand in an edge. */
  async #learn(edges) {
    const fresh = edges.some((edge) => !this.#kinds.has(edge.from) || !this.#kinds.has(this.#nodeOf(edge.to)));
    if (!fresh || Date.now() - this.#asked < this.#pause) return;
    this.#asked = Date.now();
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    try {
      const { nodes } = await ask('graph');
      for (const node of nodes) {
        this.#kinds.set(node.id, node);
        if (node.route) this.#kinds.set(`route ${node.route}`, node.id);
      }
    } catch {
      return; // It is drawn without.
    }
    this.update();
  }

  /** The filter that a node stands for. */
  #meaning(id) {
    const kind = this.#kinds.get(id)?.kind ?? (id.includes('/') ? 'agent' : callerKind(id));
    const calls = this.#app.sight.edges.some((edge) => edge.from === id);
    const route = this.#kinds.get(id)?.route ?? id;
    return calls || (kind !== 'tools' && route === id) ? { caller: id, route: '' } : { caller: '', route };
  }

  #pick({ node, edge }) {
    if (node !== undefined) this.#toggle(this.#meaning(node));
    else {
      const [from, to] = edge.split('\n');
      this.#toggle({ caller: from, route: to });
    }
  }

  /** The same once more clears it. */
  #toggle(values) {
    const { filter } = this.#app;
    const same = filter.caller === values.caller && filter.route === values.route;
    filter.set(same ? { caller: '', route: '' } : values);
  }

  #describe(fitting) {
    const { filter } = this.#app;
    const key = filter.active ? `${filter.caller}\n${filter.route}` : '';
    this.#card.hidden = key === '';
    if (key === '') return;
    const list = summary(fitting);
    if (key !== this.#cardFor) this.#compose(key);
    this.#card.querySelector('dl').replaceWith(list);
    const keys = fitting.map((edge) => `edge:${edgeKey(edge)}`);
    this.#chart?.set(...this.#app.series(...keys));
  }

  #compose(key) {
    const { filter } = this.#app;
    this.#cardFor = key;
    const title = [filter.caller || 'everybody', filter.route || 'everything'].join(' → ');
    const go = (text, view) => el('button', { type: 'button', click: () => this.#app.go(view) }, text);
    const place = el('div', { class: 'chart' });
    const both = this.#kinds.get(filter.caller)?.route;
    this.#card.replaceChildren(
      el(
        'div',
        { class: 'card-text' },
        el('h2', {}, title),
        facts([]),
        el(
          'div',
          { class: 'buttons' },
          go('Its tools', 'tools'),
          go('Its calls, live', 'calls'),
          go('Its streams', 'streams'),
          filter.route && go('Its route', 'routes'),
          both &&
            !filter.route &&
            el('button', { type: 'button', click: () => filter.set({ caller: '', route: both }) }, 'Who calls it'),
          el(
            'button',
            { type: 'button', class: 'quiet', click: () => filter.set({ caller: '', route: '' }) },
            'Show everything',
          ),
        ),
      ),
      place,
    );
    this.#chart = new RateChart(place);
  }
}

function summary(edges) {
  const sum = (name) => edges.reduce((all, edge) => all + (edge[name] ?? 0), 0);
  const slowest = edges.reduce((most, edge) => ((edge.p99Ms ?? -1) > (most?.p99Ms ?? -1) ? edge : most), null);
  const states = [...new Set(edges.map((edge) => stateOf(edge)))];
  return facts([
    [
      'State',
      states.map((state) => (state.means ? `${state.text}: ${state.means}` : state.text)).join('; ') ||
        'no edge fits',
    ],
    ['Protocol', edges.length === 1 ? edges[0].protocol.toUpperCase() : ''],
    ['Declared', edges.length === 1 ? declaredWords(edges[0].declared) : ''],
    ['Rate', rate(sum('rate'))],
    ['Errors', percent(sum('errorRate'), sum('rate'))],
    [edges.length > 1 ? 'Slowest p99' : 'p99', quantile(slowest?.p99Ms, slowest?.p99Bound)],
    ['Calls in all', `${count(sum('calls'))}, ${count(sum('errors'))} failed`],
    ['Open streams', count(sum('openStreams'))],
  ]);
}

function callerKind(id) {
  return id.includes('/') ? 'agent' : 'unknown';
}

function legend() {
  const item = (name, text) => el('li', {}, el('span', { class: `swatch ${name}`, 'aria-hidden': 'true' }), text);
  return el(
    'ul',
    { class: 'legend', 'aria-label': 'Legend' },
    item('ok', 'no errors'),
    item('warn', 'some errors, or slow'),
    item('bad', STATES.failing.means),
    item('dashed', 'undeclared'),
    item('idle', 'declared, unused'),
    item('wide', 'wider: more calls'),
  );
}
