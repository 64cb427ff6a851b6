// Makes and changes elements. Text goes in as text nodes only: nothing here reads HTML, because names of tools and
// agents come from whoever calls. Inline styles are left to CSSOM, as the page's Content-Security-Policy wants it.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes (a function listens to the event of that name) and children (text or nodes). */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(name, value);
    else setAttribute(node, name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets an attribute if it changes; `false`, null and undefined remove it. */
export function setAttribute(node, name, value) {
  if (value === false || value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sets the text if it changes, so that a selection in it lives as long as possible. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A text field with its label; `attributes` are the input's. */
export function field(label, attributes) {
  const input = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...attributes });
  return { input, node: el('label', { class: 'field' }, el('span', {}, label), input) };
}

/** A choice with its label; `options` are pairs of value and text. */
export function choice(label, options, attributes = {}) {
  const input = el(
    'select',
    attributes,
    options.map(([value, text]) => el('option', { value }, text)),
  );
  return { input, node: el('label', { class: 'field' }, el('span', {}, label), input) };
}

/** A box to tick with its label. */
export function tick(label, attributes = {}) {
  const input = el('input', { type: 'checkbox', ...attributes });
  return { input, node: el('label', { class: 'tick' }, input, el('span', {}, label)) };
}

/** A list of facts: pairs of a name and text or nodes; a pair without a value is left out. */
export function facts(pairs) {
  const list = el('dl', { class: 'facts' });
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === '') continue;
    list.append(el('div', {}, el('dt', {}, name), el('dd', {}, value)));
  }
  return list;
}

/** A plain table of text for details: heads, and rows of cells. */
export function plainTable(caption, heads, rows) {
  return el(
    'table',
    { class: 'plain' },
    el('caption', {}, caption),
    el(
      'thead',
      {},
      el(
        'tr',
        {},
        heads.map((head) => el('th', { scope: 'col' }, head)),
      ),
    ),
    el(
      'tbody',
      {},
      rows.map((row) =>
        el(
          'tr',
          {},
          row.map((cell) => el('td', {}, cell)),
        ),
      ),
    ),
  );
}

/** What a view shows in place of values: a sentence in bold and what to do. */
export function notice(title, ...lines) {
  return el(
    'div',
    { class: 'notice' },
    el('p', { class: 'notice-title' }, title),
    lines.map((line) => el('p', {}, line)),
  );
}
