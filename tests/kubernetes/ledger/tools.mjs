// A tool server of MCP's TypeScript SDK with a book of its calls: `tools.mjs PORT BOOK MODULES`.
//
// It reads batches, which the other SDKs do no more. At `/mcp` all answers of a batch come on one stream, each as it is
// there, at `/array` in one JSON array. Tools and book are those of `tools.py` and `ledger.py`. MODULES is the folder
// that the SDK is installed in.
import { randomUUID } from 'node:crypto';
import { openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';

const [port, book, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { McpServer } = require('@modelcontextprotocol/sdk/server/mcp.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { UrlElicitationRequiredError } = require('@modelcontextprotocol/sdk/types.js');
const express = require('express');
const { z } = require('zod');

const file = openSync(book, 'a');
const write = (row) => writeSync(file, `${JSON.stringify(row)}\n`);
const said = (call) => ({ content: [{ type: 'text', text: call }] });

function build() {
  const ended = new Map();
  const end = (call) => {
    if (!ended.has(call)) {
      let resolve;
      const promise = new Promise((done) => {
        resolve = done;
      });
      ended.set(call, { promise, resolve });
    }
    return ended.get(call);
  };
  const server = new McpServer({ name: 'ledger', version: '1' });
  const shape = { call: z.string() };
  const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema }, run);
  tool('fast', shape, ({ call }) => {
    end(call).resolve();
    return said(call);
  });
  tool('slow', { ...shape, until: z.string() }, async ({ call, until }) => {
    await end(until).promise;
    return said(call);
  });
  tool('fail', shape, ({ call }) => {
    throw new Error(call);
  });
  tool('refuse', shape, ({ call }) => {
    const asked = { mode: 'url', message: call, url: 'http://nowhere.invalid/', elicitationId: call };
    throw new UrlElicitationRequiredError([asked]);
  });
  tool('idle', shape, ({ call }) => said(call));
  return server;
}

const errorOf = (answer) => (answer.error ? String(answer.error.code) : answer.result.isError ? 'tool_error' : '');

/** Writes what the server hears and says. */
function observe(transport) {
  const open = new Map();
  let client = '';
  const heard = transport.onmessage;
  transport.onmessage = (message, more) => {
    if (message.method) {
      client = message.params?.clientInfo?.name ?? client;
      const name = ['tools/call', 'prompts/get'].includes(message.method) ? message.params.name : '';
      const row = { client, method: message.method, name, how: transport.how };
      if (message.id === undefined) write({ error: '', ...row });
      else open.set(message.id, row);
    }
    heard.call(transport, message, more);
  };
  const send = transport.send;
  transport.send = (message, options) => {
    const row = message.method ? undefined : open.get(message.id);
    if (row) {
      open.delete(message.id);
      write({ error: errorOf(message), ...row });
    }
    return send.call(transport, message, options);
  };
}

const sessions = new Map();
const app = express();
app.use(express.json());
app.get('/healthz', (_, response) => response.send('ok'));
app.all(['/mcp', '/array'], async (request, response) => {
  let transport = sessions.get(request.headers['mcp-session-id']);
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      enableJsonResponse: request.path === '/array',
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    await build().connect(transport);
    observe(transport);
  }
  transport.how = Array.isArray(request.body) ? 'batch' : 'alone';
  await transport.handleRequest(request, response, request.body);
});
app.listen(Number(port), '0.0.0.0');
