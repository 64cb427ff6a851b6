// A client of the TypeScript SDK 2.x for the conformance suite: `conformance_client.mjs URL`.
//
// It uses what the server says it has: lists and calls every tool, reads every resource, gets every prompt; or makes the
// calls that the scenario asks for. With
// KAGENT_PROXY it comes by a proxy of its own, which that variable names, and writes into CARRIED how many requests went
// through it.
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const freePort = () =>
  new Promise((found) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => found(port));
    });
  });
const isOpen = (port) =>
  new Promise((known) => {
    const socket = connect(port, '127.0.0.1', () => socket.destroy() && known(true));
    socket.on('error', () => known(false));
  });

const asked = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const url = new URL(process.argv.at(-1));
let metrics;
if (process.env.KAGENT_PROXY) {
  const [port, admin] = [await freePort(), await freePort()];
  const args = ['run', '--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`];
  metrics = `http://127.0.0.1:${admin}/metrics`;
  const proxy = spawn(process.env.KAGENT_PROXY, [...args, '--default-route', url.host], { stdio: 'ignore' });
  process.on('exit', () => proxy.kill());
  while (!(await isOpen(port))) await new Promise((next) => setTimeout(next, 20)); // between two looks
  [url.hostname, url.port] = ['127.0.0.1', port];
}

const PLAIN = { string: 'text', number: 1.5, integer: 2, boolean: true, array: [], object: {}, null: null };
const plain = (schema) => {
  if (schema?.enum) return schema.enum[0];
  const type = [schema?.type ?? 'string'].flat()[0];
  if (type !== 'object') return PLAIN[type];
  return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, of]) => [name, plain(of)]));
};
const tried = async (what) => {
  try {
    return await what();
  } catch (error) {
    console.error(String(error)); // the suite judges what it has seen
  }
};

const capabilities = { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} };
const client = new Client({ name: 'conformance', version: '1' }, { capabilities, versionNegotiation: { mode: 'auto' } });
client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: {} }));
client.setRequestHandler('roots/list', () => ({ roots: [] }));
await client.connect(new StreamableHTTPClientTransport(url));
const has = client.getServerCapabilities() ?? {};
if (has.tools) {
  const { tools } = (await tried(() => client.listTools())) ?? { tools: [] };
  const known = tools.map(({ name, inputSchema }) => ({ name, arguments: plain(inputSchema) }));
  for (const call of asked.toolCalls ?? known) await tried(() => client.callTool(call));
}
if (has.resources) {
  const { resources } = (await tried(() => client.listResources())) ?? { resources: [] };
  for (const { uri } of resources) await tried(() => client.readResource({ uri }));
}
if (has.prompts) {
  const { prompts } = (await tried(() => client.listPrompts())) ?? { prompts: [] };
  for (const { name } of prompts) await tried(() => client.getPrompt({ name, arguments: {} }));
}
await client.close();
if (metrics) {
  const text = await (await fetch(metrics)).text();
  const counts = text.matchAll(/^kagent_proxy_requests_total\{.*\} (\d+)$/gm);
  appendFileSync(process.env.CARRIED, `${[...counts].reduce((sum, [, count]) => sum + Number(count), 0)}\n`);
}
process.exit(0);
