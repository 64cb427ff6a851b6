// What the views are narrowed to: a caller and a route, kept in the address so that it can be shared and the back
// button works. Knows no view.

/** What metrics call names beyond their cap: a name of many, which no call has. */
export const OTHER = 'other';

/** The caller and the route that are shown, and the view. Tells `change` when one of them is another. */
export class Filter extends EventTarget {
  caller = '';
  route = '';
  view = 'graph';
  /** Names that exist: such a value is meant exactly, any other is a part of a name. */
  known = { caller: new Set(), route: new Set() };
  #views;

  constructor(views) {
    super();
    this.#views = views;
    this.#read();
    addEventListener('hashchange', () => {
      this.#read();
      this.dispatchEvent(new Event('change'));
    });
  }

  /** Changes some of `caller`, `route` and `view`; `quietly` leaves no step for the back button. */
  set(values, quietly = false) {
    Object.assign(this, values);
    const query = new URLSearchParams();
    for (const name of ['caller', 'route']) if (this[name]) query.set(name, this[name]);
    const hash = `#${this.view}${query.size ? `?${query}` : ''}`;
    if (hash !== location.hash) history[quietly ? 'replaceState' : 'pushState'](null, '', hash);
    this.dispatchEvent(new Event('change'));
  }

  /** Whether something with this caller and this route is shown. */
  admits({ caller, route }) {
    return this.#fits('caller', caller) && this.#fits('route', route);
  }

  /** Whether a value is a name that exists, so that the proxy can filter by it. */
  exact(name) {
    return this[name] !== '' && this[name] !== OTHER && this.known[name].has(this[name]);
  }

  get active() {
    return this.caller !== '' || this.route !== '';
  }

  #fits(name, value) {
    const wanted = this[name];
    if (!wanted || value === undefined) return true;
    return this.exact(name) ? value === wanted : contains(value, wanted);
  }

  #read() {
    const [view, query] = location.hash.slice(1).split('?', 2);
    const values = new URLSearchParams(query ?? '');
    this.view = this.#views.includes(view) ? view : this.#views[0];
    this.caller = values.get('caller') ?? '';
    this.route = values.get('route') ?? '';
  }
}

/** Whether a text contains another, whatever their case. */
export function contains(text, part) {
  return String(text ?? '')
    .toLowerCase()
    .includes(part.toLowerCase());
}
