// An MCP server of the TypeScript SDK 2.x: `server.mjs PORT [ORIGIN…]`, on /mcp, for 2026-07-28 and the older revisions.
//
// Its `test_…` tools, resources and prompts are those the conformance suite asks for. Requests with a foreign Host or
// Origin are refused. Browsers may come from ORIGIN. `announce` tells subscribers of a change, `end` ends their
// subscriptions in order. `hold` answers when `release` is called with the same key, `held` once it has been called.
import { createServer } from 'node:http';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, McpServer, ResourceTemplate } from '@modelcontextprotocol/server';
import { z } from 'zod';

const port = Number(process.argv[2]);
// Whatever the port: some clients come by a door of their own.
const isLocal = (host) => /^(127\.0\.0\.1|localhost)(:\d+)?$/.test(host);
const origins = [`http://localhost:${port}`, ...process.argv.slice(3)];
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';

const text = (value) => ({ type: 'text', text: value });
const say = (...content) => ({ content });
const embedded = (uri) => ({ type: 'resource', resource: { uri, mimeType: 'text/plain', text: 'embedded' } });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };

const held = new Map();
function hold(key) {
  if (!held.has(key)) {
    const [begun, ended] = [{}, {}];
    for (const one of [begun, ended]) one.happens = new Promise((happen) => (one.happen = happen));
    held.set(key, { begun, ended });
  }
  return held.get(key);
}

function tools(server) {
  const tool = (name, shape, run) => server.registerTool(name, { description: name, inputSchema: z.object(shape) }, run);
  tool('add', { a: z.number(), b: z.number() }, ({ a, b }) => say(text(String(a + b))));
  tool('size', { text: z.string() }, (args) => say(text(args.text)));
  tool('announce', {}, () => {
    handler.notify.toolsChanged();
    return say(text('announced'));
  });
  tool('end', {}, () => {
    setImmediate(() => handler.close());
    return say(text('ending'));
  });
  const key = { key: z.string() };
  tool('hold', key, async (args) => {
    hold(args.key).begun.happen();
    await hold(args.key).ended.happens;
    return say(text('released'));
  });
  tool('held', key, async (args) => {
    await hold(args.key).begun.happens;
    return say(text('held'));
  });
  tool('release', key, (args) => {
    hold(args.key).ended.happen();
    return say(text('releasing'));
  });
  // Its argument is also a header, `Mcp-Param-Region`.
  tool('region', { region: z.string().meta({ 'x-mcp-header': 'Region' }) }, ({ region }) => say(text(region)));
  tool('test_simple_text', {}, () => say(text('This is a simple text response for testing.')));
  tool('test_image_content', {}, () => say(image));
  tool('test_audio_content', {}, () => say({ type: 'audio', data: WAV, mimeType: 'audio/wav' }));
  tool('test_embedded_resource', {}, () => say(embedded('test://embedded-resource')));
  tool('test_multiple_content_types', {}, () => say(text('one'), image, embedded('test://mixed-content-resource')));
  tool('test_error_handling', {}, () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
  tool('test_tool_with_progress', {}, async (_, context) => {
    const progressToken = context.mcpReq._meta?.progressToken ?? 0;
    for (const progress of [0, 50, 100]) {
      await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
    }
    return say(text('progressed'));
  });
}

function resources(server) {
  const one = (name, uri, contents) =>
    server.registerResource(name, uri, { description: name }, () => ({ contents: [{ uri, ...contents }] }));
  one('static-text', 'test://static-text', { mimeType: 'text/plain', text: 'static text' });
  one('static-binary', 'test://static-binary', { mimeType: 'image/png', blob: PNG });
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined });
  server.registerResource('template', template, {}, (uri, { id }) => ({
    contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify({ id, data: `Data for ID: ${id}` }) }],
  }));
}

function prompts(server) {
  const user = (...content) => ({ messages: content.map((part) => ({ role: 'user', content: part })) });
  const prompt = (name, shape, run) =>
    server.registerPrompt(name, { description: name, argsSchema: z.object(shape) }, run);
  server.registerPrompt('test_simple_prompt', { description: 'simple' }, () => user(text('This is a simple prompt.')));
  prompt('test_prompt_with_arguments', { arg1: z.string(), arg2: z.string() }, ({ arg1, arg2 }) =>
    user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)));
  prompt('test_prompt_with_embedded_resource', { resourceUri: z.string() }, ({ resourceUri }) =>
    user(embedded(resourceUri), text('Please process the embedded resource above.')));
  server.registerPrompt('test_prompt_with_image', { description: 'image' }, () => user(image, text('Look.')));
}

let handler;
// What is closed serves no more: the next one takes its place, as the next process would.
function open() {
  handler = createMcpHandler(() => {
    const capabilities = { tools: { listChanged: true } };
    const server = new McpServer({ name: 'typescript-2', version: '1' }, { capabilities });
    tools(server);
    resources(server);
    prompts(server);
    return server;
  });
  const { close } = handler;
  handler.close = async () => {
    await close();
    open();
  };
}
open();
const serve = (request, response) => toNodeHandler(handler)(request, response);
createServer((request, response) => {
  const { host, origin } = request.headers;
  if (request.url !== '/mcp') return response.writeHead(404).end();
  if (!isLocal(host) || (origin && !origins.includes(origin))) return response.writeHead(403).end();
  return serve(request, response);
}).listen(port, '127.0.0.1');
