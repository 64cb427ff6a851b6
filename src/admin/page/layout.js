// Where the nodes and edges of the graph stand: which of many are drawn, and dagre's layers of them. Draws nothing.

import dagre from './vendor/dagre.esm.js';

/** Edges that are drawn; a picture of more shows nothing. The table has all. */
export const MOST = 80;

/** The edges to draw: what needs a look first, then the busiest. */
export function chosen(edges) {
  if (edges.length <= MOST) return edges;
  const weight = { failing: 3, undeclared: 2, slow: 2, ok: 1, unused: 0, declared: 0 };
  const order = (a, b) => (weight[b.state] ?? 1) - (weight[a.state] ?? 1) || b.rate - a.rate || b.calls - a.calls;
  return [...edges].sort(order).slice(0, MOST);
}

/** Stand at the ends while dagre works, so that whoever only calls is at the left, and whoever is only called at the
 * right. */
const LEFT = '\nleft';
const RIGHT = '\nright';

/**
 * Nodes and edges with their places: nodes `{id}` get `x` and `y` of the centre, edges `{key, from, to}` get `points`
 * and `label` (x and y). `size` is of a node; `labels` whether edges have one, for which there must be room.
 */
export function layout(nodes, edges, { size, labels, gap }) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: 'LR', nodesep: labels ? 16 : 12, edgesep: labels ? 16 : 6, ranksep: gap });
  graph.setDefaultEdgeLabel(() => ({}));
  const calls = new Set(edges.map((edge) => edge.from));
  const called = new Set(edges.map((edge) => edge.to));
  for (const id of [LEFT, RIGHT]) graph.setNode(id, { width: 1, height: 1 });
  // Of parts that have nothing to do with each other dagre puts the first at the bottom.
  for (const { id } of [...nodes].reverse()) {
    graph.setNode(id, { ...size });
    if (!called.has(id)) graph.setEdge(LEFT, id, { width: 0, height: 0, weight: 50 }, 'side');
    if (!calls.has(id)) graph.setEdge(id, RIGHT, { width: 0, height: 0, weight: 50 }, 'side');
  }
  for (const edge of edges) {
    graph.setEdge(
      edge.from,
      edge.to,
      labels ? { width: 76, height: 18, labelpos: 'c' } : { width: 1, height: 1 },
      edge.key,
    );
  }
  dagre.layout(graph);
  return framed(nodes, edges, graph, { size, labels });
}

/** What dagre has found, moved to the corner; the ends of edges are shared out over the sides of their nodes. */
function framed(nodes, edges, graph, { size, labels }) {
  const margin = 8;
  const places = new Map(nodes.map(({ id }) => [id, { ...graph.node(id) }]));
  const ways = edges.map((edge) => {
    const { points, x, y } = graph.edge({ v: edge.from, w: edge.to, name: edge.key });
    const label = { x, y };
    return { ...edge, label, points: labels ? through(points, label) : points.map((point) => ({ ...point })) };
  });
  share(ways, places, 'from', size.width / 2, size.height);
  share(ways, places, 'to', -size.width / 2, size.height);
  const all = [
    ...[...places.values()].flatMap(({ x, y }) => [
      { x: x - size.width / 2, y: y - size.height / 2 },
      { x: x + size.width / 2, y: y + size.height / 2 },
    ]),
    ...ways.flatMap((way) => way.points),
    ...ways.map(({ label }) => ({ x: label.x, y: label.y - 14 })),
  ];
  const bound = (of, pick) => all.reduce((most, point) => pick(most, point[of]), all[0]?.[of] ?? 0);
  const [left, top] = [bound('x', Math.min) - margin, bound('y', Math.min) - margin];
  const [right, bottom] = [bound('x', Math.max) + margin, bound('y', Math.max) + margin];
  for (const point of [...places.values(), ...ways.flatMap((way) => [...way.points, way.label])]) {
    point.x -= left;
    point.y -= top;
  }
  return {
    width: right - left,
    height: bottom - top,
    nodes: places,
    edges: new Map(ways.map(({ key, points, label }) => [key, { points, label }])),
  };
}

/** A curve bends towards its points and passes halfway between them: so that a label stands on its line, its point
 * becomes two, one at each side. */
function through(points, label) {
  const aside = points[points.length - 1].x < points[0].x ? -20 : 20;
  return points.flatMap(({ x, y }) => {
    const here = Math.abs(x - label.x) < 1 && Math.abs(y - label.y) < 1;
    return here ? [{ x: x - aside, y }, { x: x + aside, y }] : [{ x, y }];
  });
}

/** Puts one end of every edge at the side of its node, in the order in which they come or go. */
function share(ways, places, end, aside, height) {
  const byNode = new Map();
  for (const way of ways) byNode.set(way[end], [...(byNode.get(way[end]) ?? []), way]);
  for (const [id, list] of byNode) {
    const near = ({ points }) => (end === 'from' ? points[1] : points[points.length - 2]) ?? points[0];
    list.sort((a, b) => near(a).y - near(b).y);
    const { x, y } = places.get(id);
    const step = Math.min(11, (height - 12) / list.length);
    list.forEach((way, nth) => {
      const point = end === 'from' ? way.points[0] : way.points[way.points.length - 1];
      Object.assign(point, { x: x + aside, y: y + (nth - (list.length - 1) / 2) * step });
    });
  }
}

/** A smooth path along points, and the triangle at its end. */
export function path(points) {
  const last = points[points.length - 1];
  const before = points[points.length - 2] ?? last;
  let line = `M${at(points[0])}`;
  for (let i = 1; i < points.length - 1; i += 1) {
    line += ` Q${at(points[i])} ${at(middle(points[i], points[i + 1]))}`;
  }
  line += ` L${at(last)}`;
  const angle = Math.atan2(last.y - before.y, last.x - before.x);
  const corner = (turn) => ({ x: last.x - 9 * Math.cos(angle + turn), y: last.y - 9 * Math.sin(angle + turn) });
  return { line, tip: `M${at(last)} L${at(corner(0.42))} L${at(corner(-0.42))} Z` };
}

const at = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;
const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
