// A mock of the admin API: serves the page's assets with the proxy's Content-Security-Policy, and a world of
// worlds.mjs as JSON and as events. It can go away and come back. By hand, to look at the page:
//
//   node tests/page/mock.mjs demo 9090

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { world as makeWorld } from './worlds.mjs';

const PAGE = fileURLToPath(new URL('../../src/admin/page/', import.meta.url));
export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
};

export class Mock {
  #server = null;
  #sockets = new Set();
  #began = Date.now();
  #calls = 0;
  port = 0;
  /** The queries with which calls have been asked for. */
  asked = [];

  constructor(scenario) {
    this.world = makeWorld(scenario);
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Serves, on the port it had before if it had one. */
  async start(port = this.port) {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => {
        response.statusCode = 500;
        response.end(String(error));
      });
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise((done, failed) => this.#server.on('error', failed).listen(port, '127.0.0.1', done));
    this.port = this.#server.address().port;
  }

  /** Ends as a proxy that is killed: connections are cut. */
  async stop() {
    const closed = new Promise((done) => this.#server.close(done));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    response.setHeader('content-security-policy', CSP);
    response.setHeader('x-content-type-options', 'nosniff');
    const events = request.headers.accept === 'text/event-stream';
    switch (url.pathname) {
      case '/':
        return this.#file('index.html', response);
      case '/sight':
        return events ? this.#sight(request, response) : json(response, this.#now());
      case '/calls':
        return this.#stream(url.searchParams, request, response);
      case '/graph':
        return json(response, this.world.graph());
      case '/routes':
        return json(response, this.world.routes());
      case '/explain':
        return explain(url.searchParams, this.world, response);
      default:
        if (url.pathname.startsWith('/assets/'))
          return this.#file(url.pathname.slice('/assets/'.length), response);
        return text(response, 404, 'not found');
    }
  }

  async #file(name, response) {
    const path = normalize(join(PAGE, name));
    const type = TYPES[extname(path)];
    if (!path.startsWith(PAGE) || !type) return text(response, 404, 'not found');
    let bytes;
    try {
      bytes = await readFile(path);
    } catch {
      return text(response, 404, 'not found');
    }
    response.setHeader('content-type', type);
    response.end(bytes);
  }

  #now() {
    return this.world.sight((Date.now() - this.#began) / 1000);
  }

  #sight(request, response) {
    const send = begin(request, response, 1000, () => send('sight', this.#now()));
    send('sight', this.#now());
  }

  #stream(query, request, response) {
    this.asked.push(Object.fromEntries(query));
    const send = begin(request, response, this.world.callEvery, () => {
      const call = this.world.call((this.#calls += 1));
      if (
        call &&
        [...query].every(([name, value]) =>
          name === 'error' && value === 'any' ? call.error : call[name] === value,
        )
      ) {
        send('call', call);
      }
    });
    response.write(': keep-alive\n\n');
  }
}

/** Begins an answer of events and calls `beat` until its client goes. */
function begin(request, response, every, beat) {
  response.setHeader('content-type', 'text/event-stream');
  response.setHeader('cache-control', 'no-store');
  response.flushHeaders();
  const timer = setInterval(beat, every);
  request.socket.on('close', () => clearInterval(timer));
  response.on('close', () => clearInterval(timer));
  return (name, data) => response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}

function json(response, value) {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

function text(response, status, words) {
  response.statusCode = status;
  response.setHeader('content-type', 'text/plain; charset=utf-8');
  response.end(`${words}\n`);
}

function explain(query, world, response) {
  const unknown = [...query.keys()].find(
    (name) => !['host', 'path', 'method', 'from', 'authority', 'listener'].includes(name),
  );
  if (unknown)
    return text(response, 400, `"${unknown}" is not known; write host, path, method, authority, listener or from`);
  const asked = {
    host: query.get('host'),
    path: query.get('path') ?? '/',
    method: query.get('method') ?? 'POST',
  };
  if (!asked.path.startsWith('/'))
    return json(response, { ...asked, error: `"${asked.path}" is not a path; begin it with /` });
  const found = world.routes().routes.find((route) => route.host === asked.host);
  if (!found) {
    return json(response, {
      ...asked,
      reason: 'unknown_target',
      status: 503,
      detail: `no route for host "${asked.host}"; an operator may add one with --route`,
      candidates: ['tools.team-a'],
      chain: [],
      action: 'add a route; the candidates are near misses',
    });
  }
  const none = { head: '0', idle: '0', total: '0' };
  return json(response, {
    ...asked,
    normalised: asked.host,
    route: {
      host: found.host,
      prefix: found.prefix,
      kind: 'discovered',
      why: 'the cluster has it; see chain',
    },
    targets: found.targets,
    caller: query.has('from') ? 'team-a/parent' : undefined,
    applies: {
      hold: '2s',
      card: 'not a card',
      connect: '2s',
      unary: none,
      eventStream: { ...none, idle: '1h' },
      upgrade: none,
      keepAlive: '30s',
      sessions: 'revive',
      holdSession: '20s',
    },
    values: {
      targets: { value: found.targets, source: '--route' },
      'hold.card': { value: '20s', source: 'default' },
      'tls.ca': { value: null, source: 'default' },
    },
    chain: [
      {
        candidate: 'RemoteMCPServer team-a/tools (port 8080)',
        verdict: 'taken: its path is the longest that fits',
      },
      { candidate: 'port 9000', verdict: 'not named by anything' },
    ],
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = new Mock(process.argv[2] ?? 'demo');
  await mock.start(Number(process.argv[3] ?? 9090));
  console.log(mock.url);
}
