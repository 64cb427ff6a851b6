// Clients of a TypeScript SDK in session mode: `clients.mjs 1|2 URL HOST`. `../README.md` has the orders.
import { createInterface } from 'node:readline';

const [sdk, url, host] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport: Transport } = await (sdk === '1' ? one() : two());

async function one() {
  const client = await import('@modelcontextprotocol/sdk/client/index.js');
  return { ...client, ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')) };
}

function two() {
  return import('@modelcontextprotocol/client');
}

const say = (what) => process.stdout.write(`${JSON.stringify({ ...what, at: Date.now() / 1000 })}\n`);
// A fault in one client's background work is that client's matter: its calls show it.
process.on('unhandledRejection', (error) => console.error('unhandled', error));

class One {
  constructor(name) {
    this.name = name;
    this.calls = new Set();
    this.opening = this.open();
  }

  async open() {
    this.transport = new Transport(new URL(url), { requestInit: { headers: { 'x-kagent-host': host } } });
    this.client = new Client({ name: 'typescript', version: '1', title: this.name });
    try {
      await this.client.connect(this.transport);
    } catch (error) {
      say({ client: this.name, event: 'refused', error: String(error).slice(0, 300) });
      return;
    }
    // Heard where they arrive: the SDKs drop progress that belongs to no call of theirs.
    const handle = this.transport.onmessage;
    this.transport.onmessage = (message, extra) => {
      const text = message.params?.data ?? message.params?.progressToken;
      if (message.method?.startsWith('notifications/')) say({ client: this.name, event: 'heard', text: String(text) });
      return handle(message, extra);
    };
    this.client.onclose = () => say({ client: this.name, event: 'ended', error: '' });
    say({ client: this.name, event: 'opened' });
  }

  async close() {
    try {
      await this.transport.terminateSession();
    } catch (error) {
      console.error(this.name, error); // a session that the server does not have
    }
    await this.client.close();
  }

  async answer(order) {
    const options = { timeout: order.limit * 1000 };
    let outcome;
    let text;
    try {
      [outcome, text] = await this.ask(order, options);
    } catch (error) {
      text = String(error).slice(0, 300);
      outcome = text.includes('Request timed out') ? 'unanswered' : 'error';
    }
    say({ client: this.name, event: 'answer', number: order.number, outcome, text });
  }

  async ask(order, options) {
    if (order.do === 'list') {
      const { tools } = await this.client.listTools({}, { ...options, cacheMode: 'bypass' });
      return ['result', tools.map((tool) => tool.name).join(' ')];
    }
    const { client, number, gate, announce } = order;
    const call = { name: 'count', arguments: { client, number, gate, announce } };
    const result = await (sdk === '1'
      ? this.client.callTool(call, undefined, options)
      : this.client.callTool(call, options));
    return [result.isError ? 'told' : 'result', result.content[0]?.text ?? ''];
  }
}

const clients = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === 'open') clients.set(order.client, new One(order.client));
  else if (order.do === 'ping') setImmediate(() => say({ client: order.client, event: 'pong' }));
  else if (order.do === 'close') clients.get(order.client).close();
  else clients.get(order.client).answer(order);
}
process.exit(0);
