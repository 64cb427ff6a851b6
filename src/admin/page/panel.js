// The panel beside a view that shows everything about one row. It takes the focus when it opens, and gives it back.

import { el, facts } from './dom.js';

export class Panel {
  #heading = el('h2', { tabindex: -1, id: 'panel-title' });
  #content = el('div', { class: 'panel-content' });
  #from = null;
  #key = null;
  #closed = null;

  constructor(element) {
    this.element = element;
    const close = el('button', { type: 'button', class: 'quiet', click: () => this.close() }, 'Close');
    element.append(el('div', { class: 'panel-head' }, this.#heading, close), this.#content);
    element.setAttribute('aria-labelledby', 'panel-title');
    element.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.close();
    });
  }

  /** Shows `nodes` under a title. `key` names what is shown, `from` gets the focus back, `closed` is told the end. */
  open({ key, title, nodes, from, closed }) {
    if (this.#key !== null) this.#closed?.();
    Object.assign(this.element, { hidden: false });
    this.#heading.textContent = title;
    this.#content.replaceChildren(...nodes);
    this.#content.scrollTop = 0;
    [this.#key, this.#from, this.#closed] = [key, from, closed];
    this.#heading.focus({ preventScroll: true });
  }

  /** Shows other nodes under the same title if this is what is shown. */
  refresh(key, nodes) {
    if (this.#key === key) this.#content.replaceChildren(...nodes);
  }

  /** Opens with every column of a table's row, for narrow screens do not have all. */
  row({ key, title, columns, row, from, table, rowKey }) {
    table.select(rowKey);
    this.open({ key, title, nodes: [columnFacts(columns, row)], from, closed: () => table.select(null) });
  }

  /** Shows what the row says now. */
  rowAgain(key, columns, row) {
    if (row) this.refresh(key, [columnFacts(columns, row)]);
  }

  shows(key) {
    return this.#key === key;
  }

  close() {
    if (this.#key === null) return;
    const had = this.element.contains(document.activeElement);
    this.element.hidden = true;
    this.#key = null;
    this.#closed?.();
    if (had && this.#from?.isConnected) this.#from.focus();
  }
}

function columnFacts(columns, row) {
  return facts(columns.map((column) => [column.title, column.text(row)]));
}
