// The view of routes: where each host leads, and of those that are not routable why. Asked for while it is shown; ten
// thousand are no trouble, because only the rows in sight are drawn.

import { choice, el, facts, field, notice, plainTable, setText } from './dom.js';
import { contains } from './filter.js';
import { clock, count, plural } from './format.js';
import { ask } from './live.js';
import { Table } from './table.js';

/** Milliseconds between two answers; for many routes longer, for each answer has them all. */
const PAUSE = 10_000;
const LONG_PAUSE = 60_000;
const MANY = 1000;

export class Routes {
  #app;
  #table;
  #rows = null;
  #unmarked = 0;
  #at = 0;
  #failed = '';
  #timer = null;
  #asking = false;
  #search = field('Search', { type: 'search', placeholder: 'host, target or reason', input: () => this.update() });
  #which = choice(
    'Show',
    [
      ['', 'all'],
      ['yes', 'routable'],
      ['no', 'not routable'],
    ],
    { change: () => this.update() },
  );
  #again = el('button', { type: 'button', click: () => this.#load() }, 'Load again');
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');

  constructor(app, place) {
    this.#app = app;
    this.#table = new Table({
      label: 'Routes, and hosts that are not routable',
      sort: 'host',
      key: (row) => row.key,
      open: (row, from) => this.#open(row, from),
      columns: [
        { id: 'host', title: 'Host', text: (row) => row.host + (row.prefix === '/' ? '' : row.prefix), width: 21 },
        { id: 'state', title: 'State', width: 8, text: (row) => row.state, tone: (row) => row.tone },
        {
          id: 'endpoints',
          title: 'Endpoints',
          minor: true,
          width: 12,
          text: (row) => row.endpoints,
          sort: (row) => row.ready,
          tone: (row) => row.endpointsTone,
        },
        {
          id: 'load',
          title: 'In flight',
          numeric: true,
          minor: true,
          width: 6,
          text: (row) => (row.load === null ? '–' : count(row.load)),
          sort: (row) => row.load,
        },
        { id: 'leads', title: 'Leads to, or why not', text: (row) => row.leads },
      ],
    });
    place.append(
      el('div', { class: 'controls' }, this.#search.node, this.#which.node, this.#again, this.#status),
      this.#empty,
      this.#table.element,
    );
  }

  show() {
    this.#load();
    this.update();
  }

  hide() {
    clearTimeout(this.#timer);
  }

  /** After the proxy was away. */
  retry() {
    this.#load();
  }

  async #load() {
    if (this.#asking) return;
    this.#asking = true;
    clearTimeout(this.#timer);
    this.#again.disabled = true;
    try {
      const answer = await ask('routes');
      this.#rows = [...(answer.refused ?? []).map(refusedRow), ...(answer.routes ?? []).map(routeRow)];
      this.#unmarked = answer.unmarkedServices ?? 0;
      [this.#at, this.#failed] = [Date.now(), ''];
    } catch (error) {
      this.#failed = error.message;
    }
    this.#asking = false;
    this.#again.disabled = false;
    if (this.#app.filter.view === 'routes' && !document.hidden) {
      this.#timer = setTimeout(() => this.#load(), (this.#rows?.length ?? 0) > MANY ? LONG_PAUSE : PAUSE);
    }
    this.update();
  }

  update(what) {
    // Ten thousand rows are not sorted each second for nothing.
    if (what === 'sight') return;
    if (this.#rows === null) {
      this.#table.element.hidden = true;
      const node = this.#failed
        ? notice('The routes cannot be loaded.', this.#failed)
        : notice('Loading the routes…');
      this.#empty.replaceChildren(node);
      return;
    }
    const words = this.#search.input.value.trim();
    const which = this.#which.input.value;
    const rows = this.#rows.filter(
      (row) =>
        this.#app.filter.admits({ route: row.host }) &&
        (!which || (which === 'yes') === row.routable) &&
        (!words || contains(row.host, words) || contains(row.prefix, words) || contains(row.leads, words)),
    );
    this.#table.set(rows);
    this.#table.element.hidden = rows.length === 0;
    this.#summary(rows.length);
    const nodes = [];
    if (this.#rows.length === 0) {
      nodes.push(
        notice(
          'There is no route.',
          'Give one with --route HOST=TARGET, or let --discovery make them from the cluster.',
        ),
      );
    } else if (rows.length === 0)
      nodes.push(notice('No route fits the filter.', 'Clear a field above to see more.'));
    this.#empty.replaceChildren(...nodes);
  }

  #summary(shown) {
    const routable = this.#rows.filter((row) => row.routable).length;
    const words = [plural(routable, 'route'), `${count(this.#rows.length - routable)} not routable`];
    if (this.#unmarked) words.push(`${plural(this.#unmarked, 'Service')} without a marker`);
    if (shown !== this.#rows.length) words.push(`${count(shown)} shown`);
    const age = this.#failed
      ? `not renewed since ${clock(this.#at)}: ${this.#failed}`
      : `as of ${clock(this.#at)}`;
    setText(this.#status, `${words.join(', ')}; ${age}`);
  }

  #open(row, from) {
    this.#table.select(row.key);
    const endpoints = row.raw.endpoints ?? [];
    const leftOut = row.raw.leftOut ?? [];
    const because = row.raw.because ?? [];
    const explain = () => this.#app.explain({ host: row.host, path: row.prefix || '/' });
    this.#app.panel.open({
      key: `route:${row.key}`,
      title: row.host,
      from,
      closed: () => this.#table.select(null),
      nodes: [
        facts([
          ['State', row.state],
          ['Path', row.routable ? row.prefix : ''],
          ['From', row.raw.source === row.state ? '' : row.raw.source],
          ['Why it is not routable', row.raw.why],
          ['Targets', (row.raw.targets ?? []).join(', ')],
        ]),
        endpoints.length > 0 &&
          plainTable(
            'Endpoints',
            ['Address', 'State', 'In flight'],
            endpoints.map((one) => [
              one.address,
              one.ejected ? `${one.state}, ejected` : one.state,
              count(one.inFlight),
            ]),
          ),
        row.routable &&
          endpoints.length === 0 &&
          el('p', {}, 'It has no endpoint: calls wait for one, then fail with no_ready_endpoint.'),
        leftOut.length > 0 &&
          plainTable(
            'Addresses that are not dialled',
            ['Address', 'Why'],
            leftOut.map((one) => [one.address, one.why]),
          ),
        because.length > 0 &&
          plainTable(
            'What the cluster says',
            ['Object', 'Verdict'],
            because.map((one) => [one.candidate, one.verdict]),
          ),
        el('div', { class: 'buttons' }, el('button', { type: 'button', click: explain }, 'Explain')),
      ].filter(Boolean),
    });
  }
}

function routeRow(raw, at) {
  const ready = raw.endpoints.filter((one) => !one.ejected).length;
  const ejected = raw.endpoints.length - ready;
  const texts = [`${count(ready)} ready`];
  if (ejected) texts.push(`${count(ejected)} ejected`);
  return {
    key: `${raw.host}${raw.prefix}\n${at}`,
    host: raw.host,
    prefix: raw.prefix,
    routable: true,
    state: raw.source.startsWith('discovered,') ? 'overridden' : raw.source,
    tone: '',
    ready,
    endpoints: raw.endpoints.length ? texts.join(', ') : 'none',
    endpointsTone: ready === 0 ? 'bad' : ejected ? 'warn' : '',
    load: raw.endpoints.reduce((sum, one) => sum + one.inFlight, 0),
    leads: raw.targets.join(', '),
    raw,
  };
}

function refusedRow(raw) {
  return {
    key: raw.host,
    host: raw.host,
    prefix: '/',
    routable: false,
    state: raw.state,
    tone: raw.state === 'refused' ? 'bad' : 'warn',
    ready: null,
    endpoints: '–',
    endpointsTone: '',
    load: null,
    leads: raw.why,
    raw,
  };
}
