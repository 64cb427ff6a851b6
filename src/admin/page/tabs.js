// The tabs of the views, by the ARIA pattern: one tab stop, arrow keys, Home and End; what is chosen shows at once.

import { el, setAttribute } from './dom.js';

export class Tabs {
  #tabs = new Map();
  #choose;

  /** `views` are pairs of an id and a title; the panel of each is the element `view-ID`. */
  constructor(list, views, choose) {
    this.#choose = choose;
    for (const [id, title] of views) {
      const tab = el(
        'button',
        { type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': `view-${id}`, click: () => choose(id) },
        title,
      );
      this.#tabs.set(id, tab);
      list.append(tab);
    }
    list.addEventListener('keydown', (event) => this.#move(event));
  }

  /** Marks a view as the one that is shown. */
  show(id) {
    for (const [one, tab] of this.#tabs) {
      setAttribute(tab, 'aria-selected', one === id ? 'true' : 'false');
      setAttribute(tab, 'tabindex', one === id ? 0 : -1);
      document.getElementById(`view-${one}`).hidden = one !== id;
    }
  }

  #move(event) {
    const ids = [...this.#tabs.keys()];
    const at = ids.findIndex((id) => this.#tabs.get(id) === document.activeElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: ids.length - 1 }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    const id = ids[(next + ids.length) % ids.length];
    this.#choose(id);
    this.#tabs.get(id).focus();
  }
}
