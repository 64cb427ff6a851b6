// The view of calls as they end: newest first, narrowed by the proxy where it can, held while somebody reads.

import { choice, el, facts, field, notice, setAttribute, setText, tick } from './dom.js';
import { OTHER, contains } from './filter.js';
import { clock, count, errorText, ms, plural } from './format.js';
import { Feed } from './live.js';
import { Table } from './table.js';
import { outcome, slowTone } from './words.js';

/** Calls that are kept. */
const KEPT = 1000;
/** Milliseconds between two drawings. */
const BEAT = 250;
/** Where names need the room that parts of a second would take. */
const NARROW = matchMedia('(max-width: 640px)');

export class Calls {
  #app;
  #feed;
  #table;
  #calls = [];
  #fresh = [];
  #number = 0;
  #missed = 0;
  #paused = false;
  #beat = null;
  #asked = '';
  #method = field('Method', {
    type: 'search',
    placeholder: 'any',
    list: 'known-methods',
    input: () => this.#narrow(),
  });
  #tool = field('Tool', { type: 'search', placeholder: 'any', list: 'known-tools', input: () => this.#narrow() });
  #protocol = choice(
    'Protocol',
    [
      ['', 'both'],
      ['mcp', 'MCP'],
      ['a2a', 'A2A'],
    ],
    { change: () => this.#narrow() },
  );
  #failed = tick('Errors only', { change: () => this.#narrow() });
  #pause = el('button', { type: 'button', 'aria-pressed': 'false', click: () => this.#toggle() }, 'Pause');
  #status = el('p', { class: 'status', role: 'status' });
  #empty = el('div');

  constructor(app, place) {
    this.#app = app;
    this.#feed = new Feed({
      url: () => this.#url(),
      events: {
        call: (call) => this.#fresh.push({ ...call, number: (this.#number += 1) }),
        missed: ({ missed }) => (this.#missed += missed),
      },
      onState: () => this.#say(),
    });
    this.#table = new Table({
      label: 'Calls, newest first',
      sort: '-at',
      key: (call) => call.number,
      open: (call, from) => this.#open(call, from),
      columns: [
        {
          id: 'at',
          title: 'Ended at',
          numeric: true,
          width: 9.5,
          text: (call) => clock(call.at, !NARROW.matches),
          sort: (call) => call.number,
        },
        { id: 'caller', title: 'Caller', text: (call) => call.caller },
        { id: 'route', title: 'Route', minor: true, text: (call) => call.route },
        { id: 'method', title: 'Method', minor: true, width: 11, text: (call) => call.method },
        { id: 'tool', title: 'Tool', text: (call) => call.tool || '–', sort: (call) => call.tool },
        { id: 'outcome', title: 'Outcome', width: 11, text: outcome, tone: (call) => (call.error ? 'bad' : 'ok') },
        {
          id: 'took',
          title: 'Took',
          numeric: true,
          width: 6,
          text: (call) => ms(call.durationMs),
          sort: (call) => call.durationMs,
          tone: (call) => slowTone(call.durationMs),
        },
      ],
    });
    const clear = el('button', { type: 'button', class: 'quiet', click: () => this.#clear() }, 'Clear list');
    place.append(
      el(
        'div',
        { class: 'controls' },
        this.#method.node,
        this.#tool.node,
        this.#protocol.node,
        this.#failed.node,
        this.#pause,
        clear,
        this.#status,
      ),
      this.#empty,
      this.#table.element,
    );
  }

  show() {
    if (this.#beat === null) this.#beat = setInterval(() => this.#draw(), BEAT);
    this.#asked = this.#url();
    this.#feed.start();
    this.#draw(true);
  }

  /** The stream is let go: a browser has few connections for one proxy. */
  hide() {
    clearInterval(this.#beat);
    this.#beat = null;
    this.#feed.stop();
    this.#draw(true);
  }

  /** After the proxy was away. */
  retry() {
    this.#feed.retry();
  }

  /** Names that can be asked of the proxy become known with `sight`, so both may change the question. */
  update(what) {
    if (what === 'sight') this.#ask();
    else this.#narrow();
  }

  /** Asks anew if the filter has changed what the proxy is asked. */
  #ask() {
    const url = this.#url();
    if (url === this.#asked) return;
    this.#asked = url;
    this.#feed.retry();
  }

  #url() {
    const query = new URLSearchParams();
    for (const name of ['caller', 'route']) {
      if (this.#app.filter.exact(name)) query.set(name, this.#app.filter[name]);
    }
    for (const [name, value] of [
      ['method', this.#value('method')],
      ['tool', this.#value('tool')],
    ]) {
      if (value !== OTHER && this.#app.known[name].has(value)) query.set(name, value);
    }
    if (this.#protocol.input.value) query.set('protocol', this.#protocol.input.value);
    if (this.#failed.input.checked) query.set('error', 'any');
    return `calls${query.size ? `?${query}` : ''}`;
  }

  #value(name) {
    return (name === 'method' ? this.#method : this.#tool).input.value.trim();
  }

  #narrow() {
    this.#ask();
    this.#draw(true);
  }

  #fits(call) {
    const [method, tool] = [this.#value('method'), this.#value('tool')];
    return (
      this.#app.filter.admits(call) &&
      (!method || contains(call.method, method)) &&
      (!tool || contains(call.tool, tool)) &&
      (!this.#protocol.input.value || call.protocol === this.#protocol.input.value) &&
      (!this.#failed.input.checked || call.error)
    );
  }

  #toggle() {
    this.#paused = !this.#paused;
    setAttribute(this.#pause, 'aria-pressed', this.#paused ? 'true' : 'false');
    this.#draw(!this.#paused);
  }

  #clear() {
    [this.#calls, this.#fresh, this.#missed] = [[], [], 0];
    this.#draw(true);
  }

  #held() {
    return this.#table.busy || this.#table.element.scrollTop > 0;
  }

  #draw(now = false) {
    if (this.#fresh.length > KEPT) this.#fresh.splice(0, this.#fresh.length - KEPT);
    if (this.#paused || (!now && this.#held())) {
      this.#say();
      return;
    }
    if (!now && this.#fresh.length === 0) return;
    this.#calls = [...this.#calls, ...this.#fresh].slice(-KEPT);
    this.#fresh = [];
    this.#table.set(this.#calls.filter((call) => this.#fits(call)));
    this.#say();
  }

  #say() {
    if (!this.#table) return;
    const waiting = this.#fresh.filter((call) => this.#fits(call)).length;
    const words = [];
    if (this.#paused) words.push(`Paused, ${count(waiting)} new`);
    else if (waiting > 0 && this.#held()) words.push(`Held while you read, ${count(waiting)} new`);
    else words.push(plural(this.#table.length, 'call'));
    if (this.#calls.length >= KEPT && !this.#paused) words.push(`the last ${count(KEPT)} are kept`);
    if (this.#missed) words.push(`${count(this.#missed)} passed too fast to show`);
    if (this.#feed.state.state === 'away') words.push('not live: the proxy does not answer');
    setText(this.#status, words.join('; '));
    const empty = this.#table.length === 0;
    this.#table.element.hidden = empty;
    const narrowed =
      this.#app.filter.active || this.#asked !== 'calls' || this.#value('method') || this.#value('tool');
    const title = narrowed
      ? 'No call that fits the filter has ended since this view was opened.'
      : 'No call has ended since this view was opened.';
    setAttribute(this.#empty, 'data-for', empty ? title : null);
    if (!empty) this.#empty.replaceChildren();
    else if (this.#empty.textContent === '' || !this.#empty.textContent.startsWith(title)) {
      this.#empty.replaceChildren(notice(title, 'Each appears here when its answer has passed.'));
    }
  }

  #open(call, from) {
    const trace = call.trace ? el('code', {}, call.trace) : '';
    const only = (text, values) =>
      el('button', { type: 'button', click: () => this.#app.filter.set(values) }, text);
    this.#table.select(call.number);
    this.#app.panel.open({
      key: `call:${call.number}`,
      title: call.tool || call.method || 'Call',
      from,
      closed: () => this.#table.select(null),
      nodes: [
        facts([
          ['Ended at', `${clock(call.at, true)} (${call.at})`],
          ['Caller', call.caller],
          ['Peer', call.peer],
          ['Route', call.route],
          ['Path', call.path],
          ['Protocol', call.protocol.toUpperCase()],
          ['Method', call.method],
          ['Tool', call.tool],
          ['Error', errorText(call.error) || 'none'],
          ['HTTP status', String(call.status ?? '')],
          ['Took', ms(call.durationMs)],
          ['Session', call.session],
          ['Conversation', call.conversation],
          ['Trace', trace],
        ]),
        el(
          'div',
          { class: 'buttons' },
          only('Only this caller', { caller: call.caller }),
          only('Only this route', { route: call.route }),
          el(
            'button',
            {
              type: 'button',
              click: () => this.#app.explain({ host: call.route, path: call.path, from: call.peer }),
            },
            'Explain its route',
          ),
        ),
      ],
    });
  }
}
