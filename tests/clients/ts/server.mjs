// An MCP server of the TypeScript SDK: `server.mjs PORT [ORIGIN…]`, streamable HTTP on /mcp, legacy SSE on /sse.
//
// Its `test_…` tools, resources and prompts are those the conformance suite asks for. Requests with a foreign
// Host or Origin are refused, so a proxy that passes its own Host is too. Browsers may come from ORIGIN.
import { randomUUID } from 'node:crypto';
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';
import express from 'express';
import { z } from 'zod';

const port = Number(process.argv[2]);
const guard = {
  enableDnsRebindingProtection: true,
  allowedHosts: [`127.0.0.1:${port}`, `localhost:${port}`],
  allowedOrigins: [`http://localhost:${port}`, ...process.argv.slice(3)],
};
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';
let waiting = 0;
let cancelled = 0;

const text = (value) => ({ type: 'text', text: value });
const say = (...content) => ({ content });
const embedded = (uri) => ({ type: 'resource', resource: { uri, mimeType: 'text/plain', text: 'embedded' } });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };

function tools(server) {
  const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema }, run);
  tool('add', { a: z.number(), b: z.number() }, ({ a, b }) => say(text(String(a + b))));
  tool('size', { text: z.string() }, (args) => say(text(args.text)));
  tool('count', { to: z.number() }, async ({ to }, { _meta, sendNotification }) => {
    for (let n = 1; n <= to; n++) {
      const params = { progressToken: _meta.progressToken, progress: n, total: to };
      await sendNotification({ method: 'notifications/progress', params });
    }
    return say(text('counted'));
  });
  tool('wait', {}, async (_, { signal }) => {
    waiting += 1;
    await new Promise((end) => signal.addEventListener('abort', end));
    cancelled += 1;
    return say(text('cancelled'));
  });
  tool('waits', {}, () => say(text(`${waiting} ${cancelled}`)));
  tool('announce', {}, () => {
    server.sendToolListChanged();
    return say(text('announced'));
  });
  tool('test_simple_text', {}, () => say(text('This is a simple text response for testing.')));
  tool('test_image_content', {}, () => say(image));
  tool('test_audio_content', {}, () => say({ type: 'audio', data: WAV, mimeType: 'audio/wav' }));
  tool('test_embedded_resource', {}, () => say(embedded('test://embedded-resource')));
  tool('test_multiple_content_types', {}, () => say(text('one'), image, embedded('test://mixed-content-resource')));
  tool('test_error_handling', {}, () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
  tool('test_tool_with_logging', {}, async (_, { sendNotification }) => {
    for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await sendNotification({ method: 'notifications/message', params: { level: 'info', data } });
    }
    return say(text('logged'));
  });
  tool('test_tool_with_progress', {}, async (_, { _meta, sendNotification }) => {
    for (const progress of [0, 50, 100]) {
      const params = { progressToken: _meta?.progressToken ?? 0, progress, total: 100 };
      await sendNotification({ method: 'notifications/progress', params });
    }
    return say(text('progressed'));
  });
  tool('test_sampling', { prompt: z.string() }, async ({ prompt }, { sendRequest }) => {
    const messages = [{ role: 'user', content: text(prompt) }];
    const request = { method: 'sampling/createMessage', params: { messages, maxTokens: 100 } };
    const answer = await sendRequest(request, types.CreateMessageResultSchema);
    return say(text(`LLM response: ${answer.content.text}`));
  });
  tool('test_elicitation', { message: z.string() }, async ({ message }, { sendRequest }) => {
    const requestedSchema = { type: 'object', properties: { response: { type: 'string' } }, required: ['response'] };
    const request = { method: 'elicitation/create', params: { message, requestedSchema } };
    const answer = await sendRequest(request, types.ElicitResultSchema);
    return say(text(`User response: action=${answer.action}, content=${JSON.stringify(answer.content)}`));
  });
}

function resources(server) {
  const one = (name, uri, contents) =>
    server.registerResource(name, uri, { description: name }, () => ({ contents: [{ uri, ...contents }] }));
  one('static-text', 'test://static-text', { mimeType: 'text/plain', text: 'static text' });
  one('static-binary', 'test://static-binary', { mimeType: 'image/png', blob: PNG });
  one('watched-resource', 'test://watched-resource', { mimeType: 'text/plain', text: 'watched' });
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined });
  server.registerResource('template', template, {}, (uri, { id }) => ({
    contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify({ id, data: `Data for ID: ${id}` }) }],
  }));
  server.server.setRequestHandler(types.SubscribeRequestSchema, () => ({}));
  server.server.setRequestHandler(types.UnsubscribeRequestSchema, () => ({}));
}

function prompts(server) {
  const user = (...content) => ({ messages: content.map((part) => ({ role: 'user', content: part })) });
  const prompt = (name, argsSchema, run) => server.registerPrompt(name, { description: name, argsSchema }, run);
  server.registerPrompt('test_simple_prompt', { description: 'simple' }, () => user(text('This is a simple prompt.')));
  prompt('test_prompt_with_arguments', { arg1: z.string(), arg2: z.string() }, ({ arg1, arg2 }) =>
    user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)));
  prompt('test_prompt_with_embedded_resource', { resourceUri: z.string() }, ({ resourceUri }) =>
    user(embedded(resourceUri), text('Please process the embedded resource above.')));
  server.registerPrompt('test_prompt_with_image', { description: 'image' }, () => user(image, text('Look.')));
  server.server.setRequestHandler(types.CompleteRequestSchema, () => ({
    completion: { values: ['a'], total: 1, hasMore: false },
  }));
}

function build() {
  const capabilities = { logging: {}, completions: {}, resources: { subscribe: true }, tools: { listChanged: true } };
  const server = new McpServer({ name: 'typescript', version: '1' }, { capabilities });
  tools(server);
  resources(server);
  prompts(server);
  return server;
}

const sessions = new Map();
const app = express();
app.use(express.json({ limit: '16mb' }));
app.all('/mcp', async (request, response) => {
  const id = request.headers['mcp-session-id'];
  let transport = sessions.get(id);
  if (id && !transport) return response.status(404).json({ jsonrpc: '2.0', id: null, error: { code: -32001, message: 'Session not found' } });
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      ...guard,
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (name) => sessions.set(name, transport),
      onsessionclosed: (name) => sessions.delete(name),
    });
    await build().connect(transport);
  }
  await transport.handleRequest(request, response, request.body);
});
app.get('/sse', async (_, response) => {
  const transport = new SSEServerTransport('/messages', response, guard);
  sessions.set(transport.sessionId, transport);
  response.on('close', () => sessions.delete(transport.sessionId));
  await build().connect(transport);
});
app.post('/messages', async (request, response) => {
  const transport = sessions.get(request.query.sessionId);
  if (!transport) return response.status(404).end();
  await transport.handlePostMessage(request, response, request.body);
});
app.listen(port, '127.0.0.1');
