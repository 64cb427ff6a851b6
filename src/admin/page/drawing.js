// The picture of the graph in SVG: colours by errors, width by rate, dashes for undeclared, grey for unused. For the
// keyboard it is a list box: one tab stop, arrow keys walk along edges and among neighbours, Enter chooses.

import { setAttribute, setText, svg } from './dom.js';
import { percent, rate } from './format.js';
import { layout, path } from './layout.js';
import { errorShare, parts, stateOf } from './words.js';

const WIDE = { size: { width: 172, height: 40 }, gap: 70 };
const NARROW = { size: { width: 116, height: 40 }, gap: 24 };
/** Edges beyond which none has a label. */
const LABELLED = 40;

export class Drawing {
  #pick;
  #places = null;
  #signature = '';
  #items = new Map();
  #current = null;
  #model = { nodes: [], edges: [] };
  #canvas = svg('svg', { role: 'listbox', 'aria-label': 'Who calls whom', class: 'graph' });
  #edges = svg('g');
  #nodes = svg('g');

  /** `pick` is told the node or the edge that is chosen: `{node}` or `{edge}`. */
  constructor(pick) {
    this.#pick = pick;
    this.#edges.setAttribute('role', 'presentation');
    this.#nodes.setAttribute('role', 'presentation');
    this.#canvas.append(this.#edges, this.#nodes);
    this.#canvas.addEventListener('keydown', (event) => this.#key(event));
    this.element = this.#canvas;
  }

  /**
   * Draws `nodes` (`{id, kind, title}`) and `edges` (`{key, from, to, edge, chosen, dim}`); the places stay as they are
   * while the same ones are there.
   */
  draw(nodes, edges, room) {
    this.#model = { nodes, edges };
    const narrow = room < 640;
    const labels = edges.length <= LABELLED;
    const names = [...nodes.map((node) => node.id).sort(), ...edges.map((edge) => edge.key).sort()];
    const signature = `${narrow}${labels}${names.join('\t')}`;
    if (signature !== this.#signature) {
      this.#signature = signature;
      this.#arrange(nodes, edges, narrow ? NARROW : WIDE, labels && !narrow);
    }
    for (const edge of edges) this.#dress(this.#items.get(edge.key), edge);
    for (const node of nodes) {
      const item = this.#items.get(node.id);
      setAttribute(item.group, 'aria-selected', node.chosen ? 'true' : 'false');
      setAttribute(item.group, 'data-dim', node.dim || null);
    }
    this.#scale(room, narrow);
  }

  #scale(room, narrow) {
    const { width, height } = this.#places;
    // Smaller than this nobody can read it: then it is scrolled.
    const scale = Math.min(1, Math.max(room / width, narrow ? 0.85 : 0.7));
    this.#canvas.style.width = `${Math.ceil(width * scale)}px`;
    this.#canvas.style.height = `${Math.ceil(height * scale)}px`;
  }

  #arrange(nodes, edges, shape, labels) {
    const held = this.#canvas.contains(document.activeElement) ? this.#current : null;
    this.#places = layout(nodes, edges, { ...shape, labels });
    setAttribute(this.#canvas, 'viewBox', `0 0 ${this.#places.width} ${this.#places.height}`);
    this.#items.clear();
    this.#edges.replaceChildren(...edges.map((edge) => this.#edge(edge, labels)));
    this.#nodes.replaceChildren(...nodes.map((node) => this.#node(node, shape.size)));
    const first = nodes[0]?.id ?? null;
    this.#current = this.#items.has(this.#current) ? this.#current : first;
    for (const [id, item] of this.#items) setAttribute(item.group, 'tabindex', id === this.#current ? 0 : -1);
    if (held !== null) this.#items.get(this.#current)?.group.focus();
  }

  #item(id, what, kind, ...children) {
    const group = svg(
      'g',
      {
        role: 'option',
        'aria-selected': 'false',
        class: kind,
        click: () => this.#choose(id),
        focus: () => this.#stop(id),
      },
      children,
    );
    this.#items.set(id, { group, what });
    return group;
  }

  #edge(edge, labels) {
    const place = this.#places.edges.get(edge.key);
    const { line, tip } = path(place.points);
    const title = svg('title');
    const label = labels ? svg('text', { class: 'label', x: place.label.x, y: place.label.y + 4 }) : null;
    const stroke = svg('path', { class: 'line', d: line });
    const head = svg('path', { class: 'tip', d: tip });
    const group = this.#item(
      edge.key,
      { edge: edge.key },
      'edge',
      title,
      svg('path', { class: 'hit', d: line }),
      stroke,
      head,
      label,
    );
    Object.assign(this.#items.get(edge.key), { title, label, stroke });
    return group;
  }

  #dress(item, { edge, chosen, dim }) {
    const state = stateOf(edge);
    const share = errorShare(edge);
    const tone =
      ['unused', 'declared'].includes(edge.state) ? 'idle' : share > 0.05 ? 'bad' : share > 0 || edge.state === 'slow' ? 'warn' : 'ok';
    setAttribute(item.group, 'data-tone', tone);
    setAttribute(item.group, 'data-dashed', edge.declared === false || edge.state === 'undeclared' || null);
    setAttribute(item.group, 'data-dim', dim || null);
    setAttribute(item.group, 'aria-selected', chosen ? 'true' : 'false');
    const label = labelOf(edge, state, share);
    const name = `${edge.from} calls ${edge.to}: ${spoken(edge, state, share, label)}`;
    setAttribute(item.group, 'aria-label', name);
    setText(item.title, name);
    item.stroke.style.strokeWidth = `${thickness(edge.rate)}px`;
    if (item.label) setText(item.label, label);
  }

  #node(node, { width, height }) {
    const { x, y } = this.#places.nodes.get(node.id);
    const left = x - width / 2;
    const { name, space } = parts(node.id);
    const room = Math.floor((width - 22) / 7);
    const kind = { agent: 'agent', tools: 'tools', unknown: 'not an Agent' }[node.kind] ?? node.kind;
    const below = !space ? kind : width < WIDE.size.width ? space : `${kind} · ${space}`;
    const group = this.#item(
      node.id,
      { node: node.id },
      `node ${node.kind}`,
      svg('title', {}, node.title),
      svg('rect', { x: left, y: y - height / 2, width, height, rx: 6 }),
      svg('rect', { class: 'mark', x: left, y: y - height / 2 + 6, width: 4, height: height - 12, rx: 2 }),
      svg('text', { class: 'name', x: left + 14, y: y - 3 }, cut(name, room)),
      ' ',
      svg('text', { class: 'kind', x: left + 14, y: y + 12 }, cut(below, room)),
    );
    setAttribute(group, 'aria-label', `${name} ${below}${below.includes(kind) ? '' : `, ${kind}`}`);
    return group;
  }

  #choose(id) {
    this.#pick(this.#items.get(id).what);
  }

  #stop(id) {
    if (this.#current === id) return;
    const before = this.#items.get(this.#current);
    if (before) setAttribute(before.group, 'tabindex', -1);
    this.#current = id;
    setAttribute(this.#items.get(id).group, 'tabindex', 0);
  }

  #key(event) {
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      if (this.#current !== null) this.#choose(this.#current);
      return;
    }
    const next = this.#neighbour(event.key);
    if (next === undefined) return;
    event.preventDefault();
    const group = this.#items.get(next)?.group;
    group?.focus();
    group?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  /** Right and left go along edges, up and down among those that stand in one layer or leave one node. */
  #neighbour(key) {
    const { nodes, edges } = this.#model;
    const edge = edges.find((one) => one.key === this.#current);
    const height = (one) => this.#places.edges.get(one.key).label.y;
    const byHeight = (list) => [...list].sort((a, b) => height(a) - height(b));
    const ends = { Home: 0, End: -1 };
    if (key in ends) return this.#column().at(ends[key]);
    if (key === 'ArrowRight')
      return edge ? edge.to : byHeight(edges.filter((one) => one.from === this.#current))[0]?.key;
    if (key === 'ArrowLeft')
      return edge ? edge.from : byHeight(edges.filter((one) => one.to === this.#current))[0]?.key;
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    if (step === undefined || nodes.length === 0) return undefined;
    const list = edge
      ? byHeight(edges.filter((one) => one.from === edge.from)).map((one) => one.key)
      : this.#column();
    return list[list.indexOf(this.#current) + step];
  }

  /** The nodes, layer by layer, each from the top. */
  #column() {
    const place = (node) => this.#places.nodes.get(node.id);
    const order = (a, b) => place(a).x - place(b).x || place(a).y - place(b).y;
    return [...this.#model.nodes].sort(order).map((node) => node.id);
  }
}

/** What stands at an edge. */
function labelOf(edge, state, share) {
  if (edge.state === 'unused' || edge.state === 'declared') return edge.state;
  if (edge.state === 'slow' || edge.state === 'undeclared') return `${rate(edge.rate)} · ${state.text}`;
  return share > 0 ? `${rate(edge.rate)} · ${percent(edge.errorRate, edge.rate)}` : rate(edge.rate);
}

/** The same and what is missing there, beginning with what can be read, so that one can name what one sees. */
function spoken(edge, state, share, label) {
  const words = [label.endsWith('%') ? `${label} errors` : label];
  if (!label.includes(state.text)) words.push(state.text);
  if (share > 0 && !label.includes('%')) words.push(`${percent(edge.errorRate, edge.rate)} errors`);
  return words.join(', ');
}

/** From one pixel for none to seven for a thousand calls a second. */
function thickness(perSecond) {
  return perSecond > 0 ? Math.min(7, 1.5 + 0.8 * Math.log2(1 + 4 * perSecond)) : 1;
}

function cut(text, room) {
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
}
