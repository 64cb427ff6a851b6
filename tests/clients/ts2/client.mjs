// A client of the TypeScript SDK 2.x that follows orders: `client.mjs MODE HOST`. `../eras.py` has them.
import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [mode, host] = process.argv.slice(2);
const headers = { 'x-kagent-host': host };
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
let client;
let subscription;
let changes = 0;
let heard = () => {};

async function connect(url) {
  for (let tries = 1; ; tries++) {
    client = new Client({ name: 'eras', version: '1' }, { versionNegotiation: { mode } });
    client.setNotificationHandler('notifications/tools/list_changed', () => {
      changes += 1;
      heard();
    });
    try {
      await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
      return { tries, protocol: client.getNegotiatedProtocolVersion() };
    } catch (error) {
      console.error(tries, String(error).slice(0, 200));
      await client.close().catch(() => {});
      await new Promise((next) => setTimeout(next, 20)); // between two tries
    }
  }
}

const orders = {
  connect,
  async call(name) {
    try {
      const result = await client.callTool({ name, arguments: name === 'add' ? { a: 2, b: 3 } : {} });
      return { told: Boolean(result.isError), text: result.content[0].text };
    } catch (error) {
      console.error(String(error));
      return { error: error.code ?? true };
    }
  },
  async listen() {
    changes = 0;
    subscription = await client.listen({ toolsListChanged: true });
    return { honored: subscription.honoredFilter.toolsListChanged };
  },
  async change() {
    while (changes === 0) await new Promise((next) => (heard = next));
    return { changed: true };
  },
  async end() {
    return { ended: await subscription.closed };
  },
};

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const [order, ...rest] = JSON.parse(line);
  say(await orders[order](...rest));
}
process.exit(0);
