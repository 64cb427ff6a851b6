// A table of any length: sorted by the buttons in its heads, only the rows in sight are elements, one tab stop for all
// rows (arrow keys go on), and rows that keep their place while somebody points at them.

import { el, setAttribute, setText } from './dom.js';

/** Rows beyond the edges of what is in sight. */
const MARGIN = 8;
/** `tools-2` before `tools-10`. */
const words = new Intl.Collator('en', { numeric: true });

/**
 * `columns`: `{id, title, text(row), sort(row)?, numeric?, minor?, width?, tone(row)?, draw(row, cell)?}`; `minor` ones
 * are left out on narrow screens, `width` is in em. `key(row)` names a row. `open(row)` is what its button does, and
 * `says` the attribute that tells whether it has done so. `sort` is the id of the column of the first order, a `-`
 * before it for descending; none keeps the order given.
 */
export class Table {
  #columns;
  #key;
  #open;
  #rows = [];
  #shown = new Map();
  #current = null;
  #selected = null;
  #sort = null;
  #body = el('tbody');
  #above = el('tr', { class: 'spacer', 'aria-hidden': 'true' });
  #below = el('tr', { class: 'spacer', 'aria-hidden': 'true' });
  #heads = [];
  #table;
  #frame = 0;
  #says;

  constructor({ label, columns, key, open, says = 'aria-expanded', sort }) {
    this.#says = says;
    this.#columns = columns;
    this.#key = key;
    this.#open = open;
    if (sort) this.#sort = { id: sort.replace(/^-/, ''), down: sort.startsWith('-') };
    this.#heads = columns.map((column) => this.#head(column));
    for (const spacer of [this.#above, this.#below]) spacer.append(el('td', { colspan: columns.length }));
    this.#body.append(this.#above, this.#below);
    this.#table = el(
      'table',
      { class: 'rows' },
      el('caption', { class: 'unseen' }, label),
      el('thead', {}, el('tr', { 'aria-rowindex': 1 }, this.#heads)),
      this.#body,
    );
    this.element = el('div', { class: 'scroller', role: 'region', 'aria-label': label, tabindex: 0 }, this.#table);
    this.element.addEventListener('scroll', () => this.#later(), { passive: true });
    new ResizeObserver(() => this.#later()).observe(this.element);
    this.#body.addEventListener('keydown', (event) => this.#move(event));
    this.#mark();
  }

  /** Shows these rows. */
  set(rows) {
    this.#rows = this.#ordered(rows);
    setAttribute(this.#table, 'aria-rowcount', rows.length + 1);
    this.#later();
  }

  get length() {
    return this.#rows.length;
  }

  /** Whether somebody points at a row or has the button of one. */
  get busy() {
    return this.#body.matches(':hover') || this.#body.contains(document.activeElement);
  }

  /** Marks one row as the one that is looked at. */
  select(key) {
    this.#selected = key;
    this.#later();
  }

  #head(column) {
    const head = el('th', { scope: 'col', class: classes(column) });
    if (column.width) head.style.setProperty('--w', `${column.width}em`);
    if (column.sort === null) {
      head.append(column.title);
      return head;
    }
    head.append(el('button', { type: 'button', class: 'sort', click: () => this.#by(column) }, column.title));
    return head;
  }

  #by(column) {
    const same = this.#sort?.id === column.id;
    this.#sort = { id: column.id, down: same ? !this.#sort.down : Boolean(column.numeric) };
    this.#mark();
    this.#rows = this.#sorted(this.#rows);
    this.element.scrollTop = 0;
    this.#later();
  }

  #mark() {
    this.#columns.forEach((column, at) => {
      const down = this.#sort?.id === column.id ? this.#sort.down : null;
      setAttribute(this.#heads[at], 'aria-sort', down === null ? null : down ? 'descending' : 'ascending');
    });
  }

  /** The order of the rows; while somebody points at one or has its button, known rows stay where they are. */
  #ordered(rows) {
    if (!this.busy || !this.#sort || this.#rows.length === 0) return this.#sorted(rows);
    const fresh = new Map(rows.map((row) => [this.#key(row), row]));
    const kept = [];
    for (const row of this.#rows) {
      const key = this.#key(row);
      if (fresh.has(key)) kept.push(fresh.get(key));
      fresh.delete(key);
    }
    return [...kept, ...this.#sorted([...fresh.values()])];
  }

  #sorted(rows) {
    const column = this.#columns.find((one) => one.id === this.#sort?.id);
    if (!column) return rows;
    const value = column.sort ?? column.text;
    const sign = this.#sort.down ? -1 : 1;
    const decorated = rows.map((row) => [value(row), row]);
    decorated.sort(([a, rowA], [b, rowB]) => {
      const order = compare(a, b, sign);
      return order || (this.#key(rowA) < this.#key(rowB) ? -1 : 1);
    });
    return decorated.map(([, row]) => row);
  }

  #later() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#render();
    });
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue('--row')) || 28;
  }

  #render() {
    const height = this.#rowHeight();
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - MARGIN);
    const room = Math.ceil((this.element.clientHeight || 600) / height) + 2 * MARGIN;
    const window = this.#rows.slice(first, first + room);
    const keys = new Set(window.map(this.#key));
    const focused = document.activeElement?.closest?.('tr');
    for (const [key, shown] of this.#shown) {
      if (keys.has(key)) continue;
      // Focus would be lost with the row.
      if (shown.row === focused) this.element.focus({ preventScroll: true });
      shown.row.remove();
      this.#shown.delete(key);
    }
    if (!this.#rows.some((row) => this.#key(row) === this.#current)) this.#current = null;
    const stop = keys.has(this.#current) ? this.#current : window.length ? this.#key(window[0]) : null;
    let place = this.#above.nextSibling;
    window.forEach((row, at) => {
      const key = this.#key(row);
      const shown = this.#shown.get(key) ?? this.#make(key);
      this.#update(shown, row, first + at, key === stop);
      if (shown.row === place) place = place.nextSibling;
      else this.#body.insertBefore(shown.row, place);
    });
    spread(this.#above, first * height);
    spread(this.#below, Math.max(0, this.#rows.length - first - window.length) * height);
  }

  #make(key) {
    const cells = this.#columns.map((column, at) =>
      at === 0 ? el('th', { scope: 'row', class: classes(column) }) : el('td', { class: classes(column) }),
    );
    let button = null;
    if (this.#open) {
      button = el('button', { type: 'button', class: 'open', focus: () => (this.#current = key) });
      cells[0].append(button);
    }
    const shown = { row: el('tr', {}, cells), cells, button, value: null };
    if (this.#open) {
      shown.row.addEventListener('click', (event) => {
        // A text that was just selected is to be copied, not opened.
        if (event.target !== button && String(getSelection())) return;
        this.#open(shown.value, button);
      });
    }
    this.#shown.set(key, shown);
    return shown;
  }

  #update(shown, row, at, stop) {
    shown.value = row;
    setAttribute(shown.row, 'aria-rowindex', at + 2);
    setAttribute(shown.row, 'class', at % 2 ? 'odd' : null);
    const selected = this.#selected !== null && this.#key(row) === this.#selected;
    setAttribute(shown.row, 'data-selected', selected || null);
    this.#columns.forEach((column, index) => {
      const cell = shown.cells[index];
      if (column.tone) setAttribute(cell, 'data-tone', column.tone(row) || null);
      if (column.draw) {
        column.draw(row, cell);
        return;
      }
      const text = column.text(row);
      setText(index === 0 && shown.button ? shown.button : cell, text);
      setAttribute(cell, 'title', text.length > 14 ? text : null);
    });
    if (!shown.button) return;
    setAttribute(shown.button, 'tabindex', stop ? 0 : -1);
    setAttribute(shown.button, this.#says, selected ? 'true' : 'false');
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[
      event.key
    ];
    if (step === undefined || !event.target.matches('button.open')) return;
    event.preventDefault();
    const at = this.#rows.findIndex((row) => this.#key(row) === this.#current);
    const next = Math.min(Math.max(at + step, 0), this.#rows.length - 1);
    const height = this.#rowHeight();
    const head = this.#table.tHead.offsetHeight;
    const top = next * height;
    const room = this.element.clientHeight - head - height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    const key = this.#key(this.#rows[next]);
    this.#current = key;
    this.#render();
    this.#shown.get(key)?.button?.focus({ preventScroll: true });
  }
}

function classes(column) {
  const names = [column.numeric && 'number', column.minor && 'minor'].filter(Boolean);
  return names.length ? names.join(' ') : null;
}

/** Nothing known comes last, whatever the direction. */
function compare(a, b, sign) {
  const [noA, noB] = [a === null || a === undefined || a === '', b === null || b === undefined || b === ''];
  if (noA || noB) return noA - noB;
  if (typeof a === 'number' && typeof b === 'number') return sign * (a - b);
  return sign * words.compare(String(a), String(b));
}

function spread(row, height) {
  row.firstChild.style.height = `${height}px`;
  row.hidden = height === 0;
}
