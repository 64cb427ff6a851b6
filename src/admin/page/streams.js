// The view of open event streams: where each leads, who holds it, and for how long.

import { el, notice, setText } from './dom.js';
import { age, count, plural } from './format.js';
import { Table } from './table.js';

const COLUMNS = [
  { id: 'route', title: 'Route', text: (row) => row.route },
  { id: 'caller', title: 'Caller', text: (row) => row.caller },
  { id: 'path', title: 'Path', minor: true, text: (row) => row.path },
  {
    id: 'session',
    title: 'Session',
    minor: true,
    width: 8,
    text: (row) => row.session || '–',
    sort: (row) => row.session,
  },
  {
    id: 'age',
    title: 'Open for',
    numeric: true,
    width: 9,
    text: (row) => age(row.ageSeconds),
    sort: (row) => row.ageSeconds,
  },
];

export class Streams {
  #app;
  #table;
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');

  constructor(app, place) {
    this.#app = app;
    this.#table = new Table({
      label: 'Open streams',
      sort: '-age',
      key: (row) => row.key,
      open: (row, from) => this.#open(row, from),
      columns: COLUMNS,
    });
    place.append(el('div', { class: 'controls' }, this.#status), this.#empty, this.#table.element);
  }

  show() {
    this.update();
  }

  update() {
    const { sight, filter } = this.#app;
    if (!sight) return;
    const rows = numbered(sight.streams.filter((row) => filter.admits(row)));
    this.#table.set(rows);
    const all = sight.totals.openStreams;
    const listed =
      rows.length === all ? plural(all, 'open stream') : `${count(rows.length)} of ${plural(all, 'open stream')}`;
    setText(
      this.#status,
      `${listed}. An MCP client keeps one open to hear from its server; agents stream their answers.`,
    );
    this.#table.element.hidden = rows.length === 0;
    const nodes = [];
    if (rows.length === 0 && sight.streams.length > 0)
      nodes.push(notice('No open stream fits the filter.', 'Clear a field above to see more.'));
    else if (rows.length === 0)
      nodes.push(notice('No stream is open.', 'Streams appear here while they are open.'));
    this.#empty.replaceChildren(...nodes);
    for (const row of rows) this.#app.panel.rowAgain(`stream:${row.key}`, COLUMNS, row);
  }

  #open(row, from) {
    const shown = { key: `stream:${row.key}`, title: 'An open stream', columns: COLUMNS, row, from };
    this.#app.panel.row({ ...shown, table: this.#table, rowKey: row.key });
  }
}

/** Streams with a key each: what one is, and a number, because two of one session are alike otherwise. */
function numbered(streams) {
  const seen = new Map();
  return [...streams]
    .sort((a, b) => b.ageSeconds - a.ageSeconds)
    .map((stream) => {
      const base = [stream.route, stream.caller, stream.path, stream.session ?? ''].join('\n');
      const nth = (seen.get(base) ?? 0) + 1;
      seen.set(base, nth);
      return { ...stream, key: `${base}\n${nth}` };
    });
}
