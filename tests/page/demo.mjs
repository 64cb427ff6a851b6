// What the page shows of `kagent-proxy demo`, which really runs: each of its faults by role and name, in every view.

import { clean, go, live } from './any.mjs';
import { open } from './browser.mjs';

/** Milliseconds for what the demo does only now and then: its server of notes forgets its sessions every 45 seconds. */
const TURN = { timeout: 90_000 };

export async function demo({ browser, url, check }) {
  const on = (view, name, run) =>
    check(`the demo: ${name}`, async () => {
      const page = await open(browser, url);
      await live(page);
      await run(await go(page, view), page);
      await clean(page);
    });
  await on('Graph', 'who calls whom, and what is wrong there', graph);
  await on('Tools', 'one tool fails, one is slow', tools);
  await on('Calls', 'calls as they end, those of one tool, those that failed', calls);
  await on('Streams', 'the stream of an agent', (view) =>
    view.getByRole('row', { name: /^agent\.demo demo\/writer \/ / }).waitFor(TURN),
  );
  await on('Sessions', 'sessions of a server that forgets them are revived', (view) =>
    view.getByRole('row', { name: /^notes\.demo \d+ \d+ [1-9]\d* 0 0 0$/ }).waitFor(TURN),
  );
  await on('Routes', 'routes and their endpoints', async (view) => {
    for (const host of ['agent', 'notes', 'tools']) {
      const name = new RegExp(`^${host}\\.demo static 1 ready \\d+ http://127\\.0\\.0\\.1:\\d+$`);
      await view.getByRole('row', { name }).waitFor();
    }
  });
  await on('Explain', 'a route and a host that has none', explain);
}

async function graph(view) {
  const edge = (from, to, rest) =>
    view.getByRole('option', { name: new RegExp(`^demo/${from} calls ${to}\\.demo: ${rest}`) });
  const row = (from, to, state, rest) =>
    view.getByRole('row', { name: new RegExp(`^demo/${from} ${to}\\.demo ${state} ${rest}`) });
  const told = [
    [edge('reviewer', 'tools', '.*100 % errors, failing'), row('reviewer', 'tools', 'MCP failing', 'yes .* 100 % ')],
    [edge('reviewer', 'notes', '.*undeclared'), row('reviewer', 'notes', 'MCP undeclared', 'no .* 0 % ')],
    [edge('planner', 'tools', '.*slow'), row('planner', 'tools', 'MCP slow', 'yes .* \\d\\.\\d s ')],
    [edge('writer', 'archive', 'unused'), row('writer', 'archive', 'MCP unused', 'yes 0/s ')],
    [edge('writer', 'agent', '\\S+/s, ok'), row('writer', 'agent', 'A2A ok', 'yes .* 0 % ')],
  ];
  for (const both of told) for (const one of both) await one.waitFor(TURN);
  for (const name of ['planner', 'writer', 'reviewer', 'agent']) {
    await view.getByRole('option', { name: `${name} agent · demo`, exact: true }).waitFor();
  }
}

async function tools(view, page) {
  await view.getByRole('row', { name: /^deploy tools\/call tools\.demo demo\/reviewer .* 100 % / }).waitFor(TURN);
  await view.getByRole('row', { name: /^search tools\/call tools\.demo demo\/planner .* 0 % .* s .* s/ }).waitFor(TURN);
  await view.getByRole('checkbox', { name: 'Errors only' }).check();
  await view.getByRole('rowheader', { name: 'add' }).first().waitFor({ state: 'detached' });
  await view.getByRole('button', { name: 'deploy' }).click();
  await page.getByRole('complementary').getByText('demo/reviewer').first().waitFor();
}

async function calls(view) {
  const row = (name) => view.getByRole('row', { name }).first();
  await row(/demo\/reviewer tools\.demo tools\/call deploy tool error/).waitFor(TURN);
  await row(/demo\/writer agent\.demo message\/stream – ok/).waitFor(TURN);
  await view.getByLabel('Tool', { exact: true }).fill('search');
  await row(/tools\/call deploy/).waitFor({ state: 'detached' });
  await row(/demo\/planner tools\.demo tools\/call search ok 5\.\d s/).waitFor(TURN);
}

async function explain(view, page) {
  const ask = async (host) => {
    await view.getByLabel('Host (x-kagent-host)', { exact: true }).fill(host);
    await view.getByRole('button', { name: 'Explain' }).click();
  };
  await ask('tools.demo');
  await page.getByRole('heading', { name: /^Routed to http:\/\/127\.0\.0\.1:\d+/ }).waitFor();
  await ask('archive.demo');
  await page.getByRole('heading', { name: /^Refused with 503: unknown_target$/ }).waitFor();
}
