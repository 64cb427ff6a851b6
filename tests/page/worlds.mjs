// What the mock of the admin API shows: worlds as the JSON of the API, made from a number of seconds and no chance, so
// that a test knows every value.

const declaredOf = { 'team-a/parent': true, 'team-b/researcher': true };

/** Edges of the demo-like world: from, to, protocol, state, declared, rate, part of errors, p50, p99, p50's bound. */
const EDGES = [
  ['team-a/parent', 'tools.team-a', 'mcp', 'ok', true, 4.2, 0, 3.1, 19],
  ['team-a/parent', 'helper.team-a', 'a2a', 'ok', true, 0.8, 0, 410, 1900],
  ['team-a/parent', 'slow.team-a', 'mcp', 'slow', true, 0.3, 0, 2600, 7400],
  ['team-a/helper', 'tools.team-a', 'mcp', 'ok', null, 1.6, 0.02, 4.4, 31],
  ['team-a/helper', 'search.team-b', 'mcp', 'failing', null, 0.9, 0.31, 88, 640],
  ['team-b/researcher', 'search.team-b', 'mcp', 'ok', true, 12.5, 0, 61, 240],
  ['team-b/researcher', 'files.team-b', 'mcp', 'undeclared', false, 0.2, 0, 7.7, 15],
  ['team-b/researcher', 'archive.team-b', 'mcp', 'unused', true, 0, 0, null, null],
  ['unknown', 'tools.team-a', 'mcp', 'ok', null, 0.1, 0, 0.5, 6.1, 'below'],
];

/** Tools of each route, with their part of its calls. */
const TOOLS = {
  'tools.team-a': [
    ['tools/call', 'add', 0.6],
    ['tools/call', 'echo', 0.3],
    ['tools/list', '', 0.08],
    ['initialize', '', 0.02],
  ],
  'helper.team-a': [
    ['message/send', '', 0.7],
    ['message/stream', '', 0.3],
  ],
  'slow.team-a': [
    ['tools/call', 'wait', 0.9],
    ['tools/list', '', 0.1],
  ],
  'search.team-b': [
    ['tools/call', 'search', 0.8],
    ['tools/call', 'fetch', 0.15],
    ['tools/list', '', 0.05],
  ],
  'files.team-b': [['tools/call', 'read_file', 1]],
  'archive.team-b': [],
};

const NODES = [
  { id: 'team-a/parent', kind: 'agent' },
  { id: 'team-a/helper', kind: 'agent', route: 'helper.team-a' },
  { id: 'team-b/researcher', kind: 'agent' },
  { id: 'unknown', kind: 'unknown' },
  ...['tools.team-a', 'slow.team-a', 'search.team-b', 'files.team-b', 'archive.team-b'].map((id) => ({
    id,
    kind: 'tools',
  })),
];

const endpoint = (address, more = {}) => ({
  address,
  state: 'ready',
  inFlight: 0,
  ejected: false,
  reuseIdleSeconds: 4,
  ...more,
});

function route(host, addresses, more = {}) {
  return {
    host,
    prefix: '/',
    source: 'discovered',
    targets: [`http://${host}.svc:8080`],
    endpoints: addresses.map((address) => (typeof address === 'string' ? endpoint(address) : address)),
    leftOut: [],
    because: [{ candidate: `RemoteMCPServer ${host}`, verdict: 'marks the Service as routable' }],
    ...more,
  };
}

/** A world; `sight(second)`, `graph()`, `routes()`, `call(n)` as the API says them. */
export function world(name) {
  return { demo, empty, huge }[name]();
}

function demo() {
  const sway = (second, at) => 1 + 0.35 * Math.sin(second / 17 + at) + 0.1 * Math.sin(second / 3 + 2 * at);
  const edges = (second) =>
    EDGES.map(([from, to, protocol, state, declared, base, share, p50Ms, p99Ms, p50Bound = null], at) => {
      const rate = base * sway(second, at);
      const calls = Math.round(base * (3600 + second));
      return {
        from,
        to,
        protocol,
        state,
        declared,
        calls,
        errors: Math.round(calls * share),
        rate,
        errorRate: rate * share,
        p50Ms,
        p50Bound,
        p99Ms,
        p99Bound: null,
        openStreams: protocol === 'mcp' && rate > 0 ? 1 : 0,
      };
    });
  const tools = (second) =>
    edges(second).flatMap((edge) =>
      TOOLS[edge.to].map(([method, tool, part]) => ({
        route: edge.to,
        caller: edge.from,
        protocol: edge.protocol,
        method,
        tool,
        declared: tool ? (declaredOf[edge.from] ? edge.declared : null) : null,
        calls: Math.round(edge.calls * part),
        errors: Math.round(edge.errors * part),
        rate: edge.rate * part,
        errorRate: edge.errorRate * part,
        p50Ms: edge.p50Ms,
        p50Bound: edge.p50Bound,
        p99Ms: edge.p99Ms,
        p99Bound: null,
      })),
    );
  const streams = (second) =>
    EDGES.filter(([, , protocol, state]) => protocol === 'mcp' && state !== 'unused').map(([caller, to], at) => ({
      route: to,
      caller,
      path: '/mcp',
      ageSeconds: second + 40 * (at + 1) ** 3 + 0.5,
      session: (0xa1b + at).toString(16).padStart(8, '0'),
    }));
  return {
    graph: () => ({ nodes: NODES, edges: edges(0) }),
    sight: (second) =>
      sightOf(edges(second), tools(second), streams(second), { openRequests: 4, routes: 6, refusedRoutes: 3 }, [
        {
          route: 'tools.team-a',
          opened: 12,
          carried: 4310,
          revived: 1,
          lost: 0,
          answeredLost: 0,
          closed: 9,
        },
        {
          route: 'search.team-b',
          opened: 40,
          carried: 9120,
          revived: 3,
          lost: 2,
          answeredLost: 1,
          closed: 31,
        },
        {
          route: 'slow.team-a',
          opened: 2,
          carried: 77,
          revived: 0,
          lost: 0,
          answeredLost: 0,
          closed: 1,
        },
      ]),
    routes: () => ({
      routes: [
        route('tools.team-a', ['10.0.0.11:8080', endpoint('10.0.0.12:8080', { inFlight: 3 })]),
        route('helper.team-a', ['10.0.0.21:8080']),
        route('slow.team-a', [endpoint('10.0.0.31:8080', { inFlight: 1, state: 'serving' })]),
        route('search.team-b', ['10.0.1.11:8080', endpoint('10.0.1.12:8080', { ejected: true })], {
          leftOut: [{ address: '10.0.9.9:8080', why: 'no Pod of the Service has this address' }],
        }),
        route('files.team-b', []),
        route('archive.team-b', ['127.0.0.1:8099'], {
          prefix: '/mcp',
          source: 'static',
          because: undefined,
        }),
      ],
      refused: [
        {
          host: 'postgres.team-a',
          state: 'refused',
          why: 'no Agent owns the Service, no RemoteMCPServer names it: only agents and MCP servers are routable',
        },
        {
          host: 'later.team-b',
          state: 'pending',
          why: 'its Service exists, its EndpointSlice does not yet',
        },
        {
          host: 'gone.team-b',
          state: 'missing',
          why: 'RemoteMCPServer team-b/gone names it, and no such Service exists',
        },
      ],
      unmarkedServices: 41,
    }),
    /** A call from time to time, in turn through the tools. */
    call: (n) => {
      const all = tools(0).filter((tool) => tool.rate > 0);
      const tool = all[(n * 7) % all.length];
      const failed = tool.errors > 0 && n % 3 === 0;
      return {
        at: new Date().toISOString(),
        route: tool.route,
        caller: tool.caller,
        protocol: tool.protocol,
        method: tool.method,
        tool: tool.tool,
        error: failed ? (n % 2 ? 'tool_error' : '-32602') : '',
        status: 200,
        durationMs: tool.p50Ms * (0.6 + (n % 5) / 5),
        peer: '10.0.0.7:4711',
        session: '00000a1b',
        trace: `4bf92f3577b34da6a3ce929d0e0e${(n % 65536).toString(16).padStart(4, '0')}`,
        path: '/mcp',
        ...(tool.protocol === 'a2a' ? { conversation: `ctx-${n % 9}`, session: undefined } : {}),
      };
    },
    callEvery: 300,
  };
}

function empty() {
  return {
    graph: () => ({ nodes: [], edges: [] }),
    sight: () => sightOf([], [], [], { openRequests: 0, routes: 0, refusedRoutes: 0 }, []),
    routes: () => ({ routes: [], refused: [], unmarkedServices: 0 }),
    call: () => null,
    callEvery: 1000,
  };
}

/** Ten thousand routes, and as many edges and tools as the API lists; names that try to be more than names. */
function huge() {
  const edges = Array.from({ length: 2000 }, (_, at) => {
    const rate = at % 7 === 0 ? 0 : 50 / (1 + at);
    const failing = at % 97 === 5;
    return {
      from: `team-${at % 40}/agent-${at % 310}`,
      to: `tools-${at}.team-${at % 40}`,
      protocol: 'mcp',
      state: failing ? 'failing' : rate ? 'ok' : 'unused',
      declared: true,
      calls: Math.round(rate * 1000),
      errors: failing ? 90 : 0,
      rate,
      errorRate: failing ? rate / 4 : 0,
      p50Ms: rate ? 12 : null,
      p99Ms: rate ? 90 : null,
      openStreams: 0,
    };
  });
  const tools = edges.map((edge, at) => ({
    route: edge.to,
    caller: edge.from,
    protocol: 'mcp',
    method: 'tools/call',
    tool: at === 1 ? '<img src=x onerror=alert(1)>' : `tool-${at}`,
    declared: true,
    calls: edge.calls,
    errors: edge.errors,
    rate: edge.rate,
    errorRate: edge.errorRate,
    p50Ms: edge.p50Ms,
    p99Ms: edge.p99Ms,
  }));
  const streams = edges.slice(0, 1000).map((edge, at) => ({
    route: edge.to,
    caller: edge.from,
    path: '/mcp',
    ageSeconds: at * 91.5,
    session: at.toString(16).padStart(8, '0'),
  }));
  return {
    graph: () => ({ nodes: [], edges }),
    sight: () => ({
      ...sightOf(edges, tools, streams, { openRequests: 310, routes: 10_000, refusedRoutes: 1200 }, []),
      truncated: true,
    }),
    routes: () => ({
      routes: Array.from({ length: 10_000 }, (_, at) =>
        route(`tools-${at}.team-${at % 40}`, [`10.1.${at >> 8}.${at & 255}:8080`]),
      ),
      refused: Array.from({ length: 1200 }, (_, at) => ({
        host: `web-${at}.team-${at % 40}`,
        state: 'refused',
        why: 'nothing marks the Service as an agent or an MCP server',
      })),
      unmarkedServices: 23_456,
    }),
    call: (n) => ({
      at: new Date().toISOString(),
      route: tools[n % 2000].route,
      caller: tools[n % 2000].caller,
      protocol: 'mcp',
      method: 'tools/call',
      tool: tools[n % 2000].tool,
      error: '',
      status: 200,
      durationMs: 5 + (n % 50),
      peer: '10.0.0.7:4711',
      path: '/mcp',
    }),
    callEvery: 5,
  };
}

function sightOf(edges, tools, streams, totals, sessions) {
  const sum = (name) => edges.reduce((all, edge) => all + edge[name], 0);
  return {
    at: new Date().toISOString(),
    windowSeconds: 60,
    totals: {
      calls: sum('calls'),
      errors: sum('errors'),
      rate: sum('rate'),
      errorRate: sum('errorRate'),
      openStreams: streams.length,
      ...totals,
    },
    edges,
    tools,
    streams,
    sessions,
    truncated: false,
  };
}
