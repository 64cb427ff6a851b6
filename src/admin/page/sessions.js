// The view of MCP sessions: what happened to those of each route since the proxy started.

import { el, facts, notice, setText } from './dom.js';
import { count, plural } from './format.js';
import { Table } from './table.js';

const EVENTS = [
  ['opened', 'Opened', 'a client began one'],
  ['carried', 'Requests', 'requests that were carried in one'],
  ['revived', 'Revived', 'begun anew on another server, because the first was gone or had forgotten it'],
  ['lost', 'Lost', 'the client was told that there is no such session; worth a look'],
  [
    'answeredLost',
    'Calls lost',
    'calls that may have run and whose answer was lost; the proxy answered them with an error',
  ],
  ['closed', 'Closed', 'the client ended it'],
];

/** The colours of events that are not as they should be. */
const TONES = { revived: 'warn', lost: 'bad', answeredLost: 'bad' };

const COLUMNS = [
  { id: 'route', title: 'Route', text: (row) => row.route },
  ...EVENTS.map(([id, title]) => ({
    id,
    title,
    numeric: true,
    width: 9,
    minor: id === 'carried' || id === 'closed',
    text: (row) => count(row[id] ?? 0),
    sort: (row) => row[id] ?? 0,
    tone: (row) => (row[id] > 0 ? TONES[id] : ''),
  })),
];

export class Sessions {
  #app;
  #table;
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');

  constructor(app, place) {
    this.#app = app;
    this.#table = new Table({
      label: 'MCP sessions of each route since the proxy started',
      sort: 'route',
      key: (row) => row.route,
      open: (row, from) => this.#open(row, from),
      columns: COLUMNS,
    });
    const words = el(
      'details',
      {},
      el('summary', {}, 'What the columns mean'),
      facts(EVENTS.map(([, title, means]) => [title, means])),
    );
    place.append(el('div', { class: 'controls' }, this.#status), this.#empty, this.#table.element, words);
  }

  show() {
    this.update();
  }

  update() {
    const { sight, filter } = this.#app;
    if (!sight) return;
    // Sessions are counted for each route, whoever called.
    const rows = sight.sessions.filter((row) => filter.admits({ route: row.route }));
    this.#table.set(rows);
    const sum = (id) => rows.reduce((all, row) => all + (row[id] ?? 0), 0);
    const words = [
      plural(rows.length, 'route'),
      `${count(sum('opened'))} opened`,
      `${count(sum('revived'))} revived`,
      `${count(sum('lost'))} lost`,
    ];
    if (filter.caller) words.push('counted for every caller');
    setText(this.#status, rows.length ? words.join(', ') : '');
    this.#table.element.hidden = rows.length === 0;
    const nodes = [];
    if (sight.sessions.length === 0)
      nodes.push(notice('No MCP session has been opened yet.', 'A route appears here with its first session.'));
    else if (rows.length === 0)
      nodes.push(notice('No route with sessions fits the filter.', 'Clear a field above to see more.'));
    this.#empty.replaceChildren(...nodes);
    for (const row of rows) this.#app.panel.rowAgain(`sessions:${row.route}`, COLUMNS, row);
  }

  #open(row, from) {
    const shown = { key: `sessions:${row.route}`, title: row.route, columns: COLUMNS, row, from };
    this.#app.panel.row({ ...shown, table: this.#table, rowKey: row.route });
  }
}
