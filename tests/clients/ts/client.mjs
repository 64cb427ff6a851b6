// What an MCP client of the TypeScript SDK sees: `client.mjs streamable|sse URL HOST`, as JSON.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

const [kind, url, host] = process.argv.slice(2);
setTimeout(() => {
  console.error('not done after 60 s');
  process.exit(1);
}, 60_000).unref();
const headers = { 'x-kagent-host': host };
// The SSE client takes its headers for the stream from `fetch`, for posts from `requestInit`.
const routed = (input, init) => fetch(input, { ...init, headers: { ...Object.fromEntries(new Headers(init?.headers)), ...headers } });
const Transport = kind === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
const transport = new Transport(new URL(url), { fetch: routed });
const client = new Client({ name: 'typescript', version: '1' });
const changed = new Promise((seen) => client.setNotificationHandler(ToolListChangedNotificationSchema, () => seen(true)));
await client.connect(transport);
const call = async (name, args = {}, options) =>
  (await client.callTool({ name, arguments: args }, undefined, options)).content[0].text;

const seen = { server: client.getServerVersion().name, protocol: transport.protocolVersion ?? 'sse' };
seen.session = kind === 'sse' || Boolean(transport.sessionId);
seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.add = await call('add', { a: 2, b: 3 });
const big = 'x'.repeat(3 << 20);
seen.big = (await call('size', { text: big })) === big;
// Counted where they arrive: the SDK forgets progress handlers with the result, and over SSE runs them behind it.
const steps = [];
const handle = transport.onmessage;
transport.onmessage = (message, extra) => {
  if (message.method === 'notifications/progress') steps.push(message.params.progress);
  handle(message, extra);
};
seen.count = await call('count', { to: 50 }, { onprogress: () => {} });
seen.progress = steps.length === 50 && steps.every((step, at) => step === at + 1);
seen['tool error'] = (await client.callTool({ name: 'test_error_handling' })).isError;
await call('announce');
seen['notification outside a call'] = await changed;
// Give up a call that waits; the server must notice.
const counts = async () => (await call('waits')).split(' ').map(Number);
const [before] = await counts();
const giveUp = new AbortController();
const waiting = call('wait', {}, { signal: giveUp.signal }).catch(() => true);
while ((await counts())[0] === before);
giveUp.abort();
seen['given up'] = await waiting;
for (let now = await counts(); now[1] < now[0]; now = await counts());
seen['cancel reaches the server'] = true;
if (kind !== 'sse') await transport.terminateSession();
await client.close();
console.log(JSON.stringify(seen));
process.exit(0);
