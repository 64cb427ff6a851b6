// An MCP server of the TypeScript SDK that keeps state in its sessions: `server.mjs PORT POD MARKS UNKNOWN`.
//
// What every server of these runs does is in `../README.md`. UNKNOWN is the status for a session that it does not
// have: 404, as the protocol says, or 400, as the SDK's examples answer.
import { randomUUID } from 'node:crypto';
import { existsSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import express from 'express';
import { z } from 'zod';

const [port, pod, path, unknown] = process.argv.slice(2);
const marks = openSync(path, 'a');
const mark = (step, what = {}) => {
  writeSync(marks, `${JSON.stringify({ pod, step, at: Date.now() / 1000, ...what })}\n`);
  fsyncSync(marks);
};

function build() {
  let counter = 0;
  const server = new McpServer({ name: 'chaos', version: '1' }, { capabilities: { logging: {} } });
  const shape = { client: z.string(), number: z.number(), gate: z.string(), announce: z.boolean() };
  const count = async ({ client, number, gate, announce }, { sessionId }) => {
    counter += 1;
    const what = { client, number, session: sessionId, counter };
    mark('began', what);
    if (announce) {
      const params = { level: 'info', data: `stream ${client} ${number}` };
      await server.server.notification({ method: 'notifications/message', params });
    }
    while (gate && !existsSync(gate)) await wait(5); // between two looks at the gate
    return { content: [{ type: 'text', text: JSON.stringify({ pod, ...what }) }] };
  };
  server.registerTool('count', { description: 'Counts the calls of the session.', inputSchema: shape }, count);
  return server;
}

const sessions = new Map();
const refuse = (response, status, code, message) =>
  response.status(status).json({ jsonrpc: '2.0', id: null, error: { code, message } });
const app = express();
app.use(express.json());
app.all('/mcp', async (request, response) => {
  const id = request.headers['mcp-session-id'];
  let transport = sessions.get(id);
  if (id && !transport) {
    if (unknown === '400') return refuse(response, 400, -32000, 'Bad Request: No valid session ID provided');
    return refuse(response, 404, -32001, 'Session not found');
  }
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (name) => {
        sessions.set(name, transport);
        mark('opened', { client: request.body.params.clientInfo.title, session: name });
      },
      onsessionclosed: (name) => sessions.delete(name),
    });
    await build().connect(transport);
  }
  await transport.handleRequest(request, response, request.body);
});
process.on('SIGUSR1', async () => {
  // Every session goes as one does that was idle for too long.
  const old = [...sessions.values()];
  sessions.clear();
  await Promise.all(old.map((transport) => transport.close()));
  mark('forgot');
});
app.listen(Number(port), process.env.CHAOS_ADDRESS ?? '127.0.0.1'); // pods of a cluster are not on loopback
