// The view of tools: each route, caller, method and tool with its rate, errors, latencies and a line of the last
// minutes. A row opens a panel with everything about it.

import { RateChart, Sparkline } from './chart.js';
import { el, facts, field, notice, setText, tick } from './dom.js';
import { contains } from './filter.js';
import { count, percent, plural, quantile, rate } from './format.js';
import { Table } from './table.js';
import { declaredWords, numbers, toolKey } from './words.js';

export class Tools {
  #app;
  #table;
  #search = field('Method or tool', { type: 'search', placeholder: 'any', input: () => this.update() });
  #failing = tick('Errors only', { change: () => this.update() });
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');
  #lines = new WeakMap();
  #chart = null;

  constructor(app, place) {
    this.#app = app;
    this.#table = new Table({
      label: 'Tools: rate, errors and latency of each',
      sort: '-rate',
      key: toolKey,
      open: (row, from) => this.#open(row, from),
      columns: [
        {
          id: 'tool',
          title: 'Tool',
          text: (row) => row.tool || row.method,
          sort: (row) => row.tool || row.method,
        },
        { id: 'method', title: 'Method', minor: true, width: 10.5, text: (row) => row.method },
        { id: 'route', title: 'Route', text: (row) => row.route },
        { id: 'caller', title: 'Caller', minor: true, text: (row) => row.caller },
        {
          id: 'calls',
          title: 'Calls',
          numeric: true,
          minor: true,
          width: 6,
          text: (row) => count(row.calls),
          sort: (row) => row.calls,
        },
        ...numbers,
        {
          id: 'line',
          title: 'Last minutes',
          minor: true,
          width: 11,
          sort: null,
          text: () => '',
          draw: (row, cell) => this.#draw(row, cell),
        },
      ],
    });
    place.append(
      el('div', { class: 'controls' }, this.#search.node, this.#failing.node, this.#status),
      this.#empty,
      this.#table.element,
    );
  }

  show() {
    this.update();
  }

  update() {
    const { sight } = this.#app;
    if (!sight) return;
    const words = this.#search.input.value.trim();
    const rows = sight.tools.filter(
      (row) =>
        this.#app.filter.admits(row) &&
        (!words || contains(row.tool, words) || contains(row.method, words)) &&
        (!this.#failing.input.checked || row.errors > 0),
    );
    this.#table.set(rows);
    const all = sight.tools.length;
    const shown = rows.length === all ? plural(all, 'line') : `${count(rows.length)} of ${plural(all, 'line')}`;
    setText(this.#status, sight.truncated ? `${shown}; the busiest, for there are more` : shown);
    this.#say(all, rows.length);
    const open = rows.find((row) => this.#app.panel.shows(`tool:${toolKey(row)}`));
    if (open) this.#refresh(open);
  }

  #say(all, shown) {
    this.#table.element.hidden = shown === 0;
    const nodes = [];
    if (all === 0)
      nodes.push(notice('No tool has been called yet.', 'A line appears here with the first call of each tool.'));
    else if (shown === 0) nodes.push(notice('No tool fits the filter.', 'Clear a field above to see more.'));
    this.#empty.replaceChildren(...nodes);
  }

  #draw(row, cell) {
    let line = this.#lines.get(cell);
    if (!line) {
      line = new Sparkline(cell, 120, 22);
      this.#lines.set(cell, line);
    }
    line.set(...this.#app.series(`tool:${toolKey(row)}`));
  }

  #open(row, from) {
    const key = `tool:${toolKey(row)}`;
    const place = el('div', { class: 'chart' });
    this.#app.panel.open({
      key,
      title: row.tool || row.method,
      nodes: [place, ...this.#about(row)],
      from,
      closed: () => {
        this.#chart = null;
        this.#table.select(null);
      },
    });
    this.#chart = { chart: new RateChart(place), place };
    this.#table.select(toolKey(row));
    this.#refresh(row);
  }

  #refresh(row) {
    const key = `tool:${toolKey(row)}`;
    this.#chart.chart.set(...this.#app.series(key));
    // The buttons stay the same elements, or they would lose the focus.
    const list = this.#app.panel.element.querySelector('dl');
    list?.replaceWith(this.#facts(row));
  }

  #facts(row) {
    return facts([
      ['Route', row.route],
      ['Caller', row.caller],
      ['Protocol', row.protocol.toUpperCase()],
      ['Method', row.method],
      ['Tool', row.tool],
      ['Declared', row.tool ? declaredWords(row.declared) : ''],
      ['Rate', rate(row.rate)],
      ['Errors', percent(row.errorRate, row.rate)],
      ['p50', quantile(row.p50Ms, row.p50Bound)],
      ['p99', quantile(row.p99Ms, row.p99Bound)],
      ['Calls in all', count(row.calls)],
      ['Errors in all', count(row.errors)],
    ]);
  }

  #about(row) {
    const only = (text, values) =>
      el('button', { type: 'button', click: () => this.#app.filter.set(values) }, text);
    return [
      this.#facts(row),
      el(
        'div',
        { class: 'buttons' },
        only('Only this caller', { caller: row.caller }),
        only('Only this route', { route: row.route }),
        only('Its calls, live', { caller: row.caller, route: row.route, view: 'calls' }),
      ),
    ];
  }
}
