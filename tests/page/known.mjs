// What can only be checked beside the mock: known values, ten thousand routes, nothing at all, a proxy that goes and
// comes back, hostile names; and the files of the page as they stand.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { clean, counted, focused, go, live, tabTo } from './any.mjs';
import { open } from './browser.mjs';
import { Mock } from './mock.mjs';

const PAGE = fileURLToPath(new URL('../../src/admin/page/', import.meta.url));

// === the files ===

export async function files({ check }) {
  await check('vendored files are those that vendor/README.md names', vendored);
  await check('no file makes HTML, styles or code of strings', strings);
}

function vendored() {
  const readme = readFileSync(join(PAGE, 'vendor/README.md'), 'utf8');
  const rows = [...readme.matchAll(/^\| `([^`]+)` .*\| `([0-9a-f]{64})` \|$/gm)].map(([, name, sum]) => [
    name,
    sum,
  ]);
  const names = readdirSync(join(PAGE, 'vendor')).filter((name) => name !== 'README.md');
  assert.deepEqual(rows.map(([name]) => name).sort(), names.sort());
  for (const [name, sum] of rows) {
    const bytes = readFileSync(join(PAGE, 'vendor', name));
    assert.equal(createHash('sha256').update(bytes).digest('hex'), sum, name);
  }
}

function strings() {
  const scripts = readdirSync(PAGE).filter((name) => name.endsWith('.js'));
  assert.ok(scripts.length > 10);
  for (const name of scripts) {
    const text = readFileSync(join(PAGE, name), 'utf8');
    assert.match(text, /^\/\/ /, `${name} says what it is for`);
    assert.doesNotMatch(
      text,
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc/,
      name,
    );
  }
  const html = readFileSync(join(PAGE, 'index.html'), 'utf8');
  assert.doesNotMatch(html, /\sstyle=|\son\w+=|<style|<script>/);
  assert.doesNotMatch(html.replaceAll('http://www.w3.org/2000/svg', ''), /https?:|\/\/\w/);
}

// === beside the mock ===

export async function known({ browser, check, shot }) {
  /** A check beside a mock of its own. */
  const beside = (scenario, name, run, options) =>
    check(name, async () => {
      const mock = new Mock(scenario);
      await mock.start();
      try {
        const page = await open(browser, mock.url, options);
        await run(page, mock);
        await clean(page);
      } finally {
        await mock.stop();
      }
    });
  const kept = (run) => (page, mock) => run(page, mock, shot);
  await beside('demo', 'numbers and times as people read them', modules);
  await beside('demo', 'the graph: colours, dashes, grey, and the same in the table', graph);
  await beside('demo', 'the graph by the keyboard filters the other views', kept(filtered));
  await beside('demo', 'tools: sorted, narrowed, in the panel', kept(tools));
  await beside('demo', 'charts follow the colours of the system', colours);
  await beside('demo', 'calls: live, narrowed by the proxy, paused', kept(calls));
  await beside('demo', 'streams and sessions', streams);
  await beside('demo', 'routes: endpoints, and why not', kept(routes));
  await beside('demo', 'explain: routed, refused, not understood', kept(explain));
  await beside('empty', 'nothing yet: every view says so', kept(empty));
  await beside('huge', 'ten thousand routes', kept(huge));
  await beside('huge', 'names are text, whatever is in them', hostile);
  await beside('demo', 'a proxy that goes away and comes back', kept(away), { away: true });
  await beside('demo', 'a proxy that was never there', never, { away: true });
}

async function modules(page) {
  const said = await page.evaluate(async () => {
    const f = await import('/assets/format.js');
    const { History } = await import('/assets/history.js');
    const past = new History();
    for (const second of [0, 1, 3, 20]) past.push(1_000_000 + second * 1000, [['a', second]]);
    return {
      rates: [0, 0.004, 0.25, 2.5, 1240].map(f.rate),
      ms: [null, 0.42, 12.4, 1234, 125_000].map((n) => f.ms(n)),
      ages: [12.7, 184, 7500, 273_600].map(f.age),
      percents: [f.percent(0, 5), f.percent(0.01, 5), f.percent(1, 3), f.percent(1, 0)],
      errors: ['', '-32602', '503', 'tool_error'].map(f.errorText),
      series: past.series('a').slice(-21),
      none: past.series('b').every((value) => value === null),
    };
  });
  assert.deepEqual(said.rates, ['0/s', '<0.01/s', '0.25/s', '2.5/s', '1,240/s']);
  assert.deepEqual(said.ms, ['–', '0.4 ms', '12 ms', '1.2 s', '2 min 5 s']);
  assert.deepEqual(said.ages, ['12 s', '3 min 4 s', '2 h 5 min', '3 d 4 h']);
  assert.deepEqual(said.percents, ['0 %', '<1 %', '33 %', '–']);
  assert.deepEqual(said.errors, ['', 'JSON-RPC -32602', 'HTTP 503', 'tool error']);
  // A second is bridged, sixteen are a gap.
  assert.deepEqual(said.series, [0, 1, 1, 3, ...new Array(16).fill(null), 20]);
  assert.ok(said.none);
}

async function graph(page) {
  await live(page);
  const edge = (name) => page.getByRole('listbox', { name: 'Who calls whom' }).getByRole('option', { name });
  const between = (from, to, state) => new RegExp(`^${from} calls ${to}: .*\\b${state}\\b`);
  const data = async (name) => {
    await edge(name).waitFor();
    return edge(name).evaluate((node) => ({
      ...node.dataset,
      width: parseFloat(node.querySelector('.line').style.strokeWidth),
    }));
  };
  assert.equal((await data(between('team-a/helper', 'search.team-b', 'failing'))).tone, 'bad');
  assert.equal((await data(between('team-a/parent', 'slow.team-a', 'slow'))).tone, 'warn');
  const odd = await data(between('team-b/researcher', 'files.team-b', 'undeclared'));
  assert.ok('dashed' in odd);
  const grey = await data(between('team-b/researcher', 'archive.team-b', 'unused'));
  assert.equal(grey.tone, 'idle');
  assert.ok(
    (await data(between('team-b/researcher', 'search.team-b', 'ok'))).width > odd.width && odd.width > grey.width,
  );
  await edge('helper agent · team-a').waitFor();
  // The route of an agent leads to its own node.
  assert.equal(await edge('helper tools · team-a').count(), 0);
  const table = page.getByRole('table', { name: 'Who calls whom' });
  await counted(table.getByRole('rowheader'), 9);
  await table.getByRole('row', { name: /team-b\/researcher files.team-b MCP undeclared no/ }).waitFor();
  await table.getByRole('row', { name: /unknown tools.team-a .* <0.5 ms 6.1 ms/ }).waitFor();
  assert.equal(
    (await table.getByRole('columnheader').allTextContents()).slice(0, 4).join(),
    'Caller,Route,Protocol,State',
  );
}

async function filtered(page, _mock, shot) {
  await live(page);
  await page.getByRole('option', { name: 'helper agent · team-a' }).waitFor();
  await tabTo(page, ({ what }) => what === 'option');
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowRight');
  let { name } = await focused(page);
  while (/: unused$/.test(name)) {
    await page.keyboard.press('ArrowDown');
    const next = (await focused(page)).name;
    assert.notEqual(next, name);
    name = next;
  }
  assert.match(name, / calls /);
  await page.keyboard.press('Enter');
  const [, caller, route] = name.match(/^(\S+) calls (\S+): /);
  await page.waitForFunction((hash) => location.hash === hash, `#graph?${new URLSearchParams({ caller, route })}`);
  await page.getByRole('option', { selected: true }).waitFor();
  await page.getByRole('heading', { name: `${caller} → ${route}` }).waitFor();
  await page.getByText('1 of 9 edges').waitFor();
  await shot(page, 'graph-chosen');
  await page.getByRole('button', { name: 'Its tools' }).click();
  const table = page.getByRole('table', { name: /^Tools/ });
  const lines = await page.evaluate(
    async (edge) => {
      const { tools } = await (await fetch('sight')).json();
      return tools.filter((tool) => tool.caller === edge.caller && tool.route === edge.route).length;
    },
    { caller, route },
  );
  assert.ok(lines > 0);
  await counted(table.getByRole('rowheader'), lines);
  await counted(table.getByRole('row').filter({ hasText: route }), lines);
  await go(page, 'Graph');
  // The same once more shows everything again.
  await page.getByRole('option', { name }).focus();
  await page.keyboard.press('Enter');
  await page.getByText('9 edges', { exact: true }).waitFor();
}

async function tools(page, _mock, shot) {
  await live(page);
  const view = await go(page, 'Tools');
  const table = view.getByRole('table');
  await table.getByRole('button', { name: 'search' }).first().waitFor();
  const first = () => table.getByRole('row').nth(1).textContent();
  assert.match(await first(), /^search/);
  await view.getByRole('button', { name: 'p99' }).click();
  await table.locator('[aria-sort=descending]').getByText('p99').waitFor();
  await page.waitForFunction(() => document.querySelector('#view-tools tbody th').textContent === 'wait');
  await view.getByRole('searchbox', { name: 'Method or tool' }).fill('read_');
  await view.getByText('1 of 23 lines').waitFor();
  await counted(table.getByRole('rowheader'), 1);
  assert.ok((await table.locator('canvas').count()) === 1, 'a sparkline');
  await table.getByRole('button', { name: 'read_file' }).click();
  const panel = page.getByRole('complementary', { name: 'read_file' });
  await panel.getByRole('img', { name: /^Calls and errors/ }).waitFor();
  assert.match(await panel.locator('dl').textContent(), /Declaredno/);
  await shot(page, 'tools-panel');
  await panel.getByRole('button', { name: 'Close' }).click();
  await view.getByRole('searchbox').fill('');
  await view.getByRole('checkbox', { name: 'Errors only' }).check();
  await view.getByText(/^\d+ of 23 lines$/).waitFor();
}

async function colours(page) {
  await live(page);
  // Whether the chart of all calls has a pixel of the accent's colour.
  const drawn = () =>
    page.waitForFunction(() => {
      const chart = document.querySelector('#line-total canvas');
      const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      paint.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
      paint.fillRect(0, 0, 1, 1);
      const [r, g, b] = paint.getImageData(0, 0, 1, 1).data;
      paint.clearRect(0, 0, 1, 1);
      paint.drawImage(chart, 0, 0);
      const { data } = paint.getImageData(0, 0, chart.width, chart.height);
      for (let at = 0; at < data.length; at += 4) {
        const far = Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b);
        if (data[at + 3] > 180 && far < 24) return true;
      }
      return false;
    });
  await drawn();
  await page.emulateMedia({ colorScheme: 'dark' });
  await drawn();
  await page.emulateMedia({ colorScheme: 'light' });
  await drawn();
}

async function calls(page, mock, shot) {
  await live(page);
  const view = await go(page, 'Calls');
  const table = view.getByRole('table', { name: 'Calls, newest first' });
  const newest = () => table.getByRole('rowheader').first().textContent();
  await table.getByRole('rowheader').nth(4).waitFor();
  assert.deepEqual(mock.asked, [{}]);
  const moved = await newest();
  await page.waitForFunction((old) => document.querySelector('#view-calls tbody th').textContent !== old, moved);
  // Paused: calls are counted, and rows stay.
  await view.getByRole('button', { name: 'Pause' }).click();
  const held = await newest();
  await view.getByText(/^Paused, [2-9] new/).waitFor();
  assert.equal(await newest(), held);
  await shot(page, 'calls-paused');
  await view.getByRole('button', { name: 'Pause' }).click();
  await page.waitForFunction((old) => document.querySelector('#view-calls tbody th').textContent !== old, held);
  // What exists is asked of the proxy, a part of a name is compared here.
  await page.getByLabel('Caller', { exact: true }).fill('team-a/hel');
  await table
    .getByRole('row', { name: /team-a\/helper/ })
    .first()
    .waitFor();
  assert.deepEqual(mock.asked, [{}]);
  await page.getByLabel('Caller', { exact: true }).fill('team-a/helper');
  await until(() => mock.asked.length === 2);
  assert.deepEqual(mock.asked.at(-1), { caller: 'team-a/helper' });
  await view.getByRole('checkbox', { name: 'Errors only' }).check();
  await table
    .getByRole('row', { name: /JSON-RPC -32602|tool error/ })
    .first()
    .waitFor();
  await until(() => mock.asked.length === 3);
  assert.deepEqual(mock.asked.at(-1), { caller: 'team-a/helper', error: 'any' });
  for (const row of await table.getByRole('row').allTextContents()) assert.match(row, /team-a\/helper|Caller|^$/);
  await table
    .getByRole('button')
    .filter({ hasText: /^\d\d:/ })
    .first()
    .click();
  const panel = page.getByRole('complementary');
  await panel.getByText('10.0.0.7:4711').waitFor();
  await panel.getByText(/^4bf92f3577b34da6a3ce929d0e0e/).waitFor();
  await shot(page, 'calls-panel');
}

/** Waits for something that the page does to the mock. */
async function until(is) {
  for (let step = 0; !is(); step += 1) {
    assert.ok(step < 100, String(is));
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function streams(page) {
  await live(page);
  let view = await go(page, 'Streams');
  await view.getByText(/^7 open streams/).waitFor();
  const table = view.getByRole('table');
  await table.getByRole('row', { name: /00000a1b/ }).waitFor();
  await counted(table.getByRole('rowheader'), 7);
  await table.getByRole('button', { name: 'tools.team-a' }).first().click();
  await page.getByRole('complementary', { name: 'An open stream' }).getByText('/mcp').waitFor();
  await page.keyboard.press('Escape');
  view = await go(page, 'Sessions');
  const row = view.getByRole('row', { name: /^search.team-b/ });
  assert.deepEqual(await row.getByRole('cell').allTextContents(), ['40', '9,120', '3', '2', '1', '31']);
}

async function routes(page, _mock, shot) {
  await live(page);
  const view = await go(page, 'Routes');
  await view.getByText(/^6 routes, 3 not routable, 41 Services without a marker; as of /).waitFor();
  await view.getByRole('row', { name: /search.team-b discovered 1 ready, 1 ejected/ }).waitFor();
  await view.getByRole('combobox', { name: 'Show' }).selectOption('no');
  await counted(view.getByRole('rowheader'), 3);
  await view.getByRole('button', { name: 'postgres.team-a' }).click();
  const panel = page.getByRole('complementary', { name: 'postgres.team-a' });
  await panel.getByText(/no RemoteMCPServer names it.*only agents and MCP servers are routable/).waitFor();
  await shot(page, 'routes-refused');
  await page.keyboard.press('Escape');
  await view.getByRole('combobox', { name: 'Show' }).selectOption('');
  await view.getByRole('button', { name: 'search.team-b' }).click();
  await page.getByText('no Pod of the Service has this address').waitFor();
  await shot(page, 'routes-panel');
}

async function explain(page, _mock, shot) {
  await live(page);
  const view = await go(page, 'Explain');
  await view.getByText('How would a request be routed?').waitFor();
  await view.getByLabel('Host (x-kagent-host)').fill('tools.team-a');
  await view.getByLabel('From address').fill('10.0.0.7');
  await view.getByRole('button', { name: 'Explain' }).click();
  await view.getByRole('heading', { name: 'Routed to http://tools.team-a.svc:8080' }).waitFor();
  await view.getByText('team-a/parent', { exact: true }).waitFor();
  await view.getByRole('cell', { name: 'taken: its path is the longest that fits' }).waitFor();
  await view.getByText(/^Settings of the route/).click();
  await view.getByRole('cell', { name: 'hold.card' }).waitFor();
  await shot(page, 'explain-routed');
  await view.getByLabel('Host (x-kagent-host)').fill('nobody');
  await page.keyboard.press('Enter');
  await view.getByRole('heading', { name: 'Refused with 503: unknown_target' }).waitFor();
  await view.getByText('What to do: add a route; the candidates are near misses.').waitFor();
  await shot(page, 'explain-refused');
}

async function empty(page, _mock, shot) {
  await live(page);
  const says = {
    Graph: 'Nobody has called anything yet.',
    Tools: 'No tool has been called yet.',
    Calls: 'No call has ended since this view was opened.',
    Streams: 'No stream is open.',
    Sessions: 'No MCP session has been opened yet.',
    Routes: 'There is no route.',
  };
  for (const [name, words] of Object.entries(says)) {
    const view = await go(page, name);
    await view.getByText(words).waitFor();
    assert.equal(await view.getByRole('table').count(), 0, `${name} shows no empty table`);
    await shot(page, `${name.toLowerCase()}-empty`);
  }
}

async function huge(page, _mock, shot) {
  await live(page);
  await page.getByText(/^2,000 edges; the picture shows the 80 that need a look most/).waitFor();
  await shot(page, 'graph-huge');
  const view = await go(page, 'Routes');
  await view.getByText(/^10,000 routes, 1,200 not routable/).waitFor();
  const table = view.getByRole('table');
  assert.equal(await table.getAttribute('aria-rowcount'), '11201');
  const few = async () => assert.ok((await table.locator('tr').count()) < 80, 'only rows in sight are elements');
  await few();
  await shot(page, 'routes-huge');
  await view.getByRole('region').evaluate((node) => node.scrollTo(0, node.scrollHeight));
  await table.getByRole('rowheader', { name: 'web-1199.team-39' }).waitFor();
  assert.equal(await table.getByRole('row').last().getAttribute('aria-rowindex'), '11201');
  await few();
  await view.getByRole('searchbox', { name: 'Search' }).fill('tools-9999.');
  await view.getByText(/1 shown/).waitFor();
  await table.getByRole('rowheader', { name: 'tools-9999.team-39' }).waitFor();
  await view.getByRole('searchbox', { name: 'Search' }).fill('');
  // From the first to the last row by the keyboard.
  await table.getByRole('button', { name: 'tools-0.team-0' }).focus();
  await page.keyboard.press('End');
  assert.equal((await focused(page)).name, 'web-1199.team-39');
  await few();
}

async function hostile(page) {
  await live(page);
  const view = await go(page, 'Tools');
  const name = '<img src=x onerror=alert(1)>';
  await view.getByRole('searchbox').fill('<img');
  await view.getByRole('button', { name }).click();
  await page.getByRole('complementary', { name }).waitFor();
  assert.equal(await page.locator('img').count(), 0);
}

async function away(page, mock, shot) {
  await live(page);
  const view = await go(page, 'Tools');
  await view.getByRole('rowheader').first().waitFor();
  const rate = await page.locator('#tile-calls').textContent();
  await mock.stop();
  const alert = page.getByRole('alert');
  await alert
    .getByText(/^The proxy does not answer\. What is shown is what it said last, at \d\d:\d\d:\d\d\./)
    .waitFor();
  await page
    .getByRole('status')
    .filter({ hasText: /^Away$/ })
    .waitFor();
  // The last values stay, and are marked.
  assert.ok((await view.getByRole('rowheader').count()) > 10);
  assert.notEqual(await page.locator('#tile-calls').textContent(), '');
  assert.ok(parseFloat(await page.locator('.tiles').evaluate((node) => getComputedStyle(node).opacity)) < 1);
  await shot(page, 'tools-away');
  await go(page, 'Routes');
  await page.getByText('The routes cannot be loaded.').waitFor();
  await shot(page, 'routes-away');
  await mock.start();
  await alert.waitFor({ state: 'hidden' });
  await live(page);
  await page.getByText(/^6 routes/).waitFor();
  await page.waitForFunction((old) => document.getElementById('tile-calls').textContent !== old, rate);
}

/** The page of a browser's cache, or a proxy that ended while it was loaded. */
async function never(page, mock) {
  await live(page);
  await page.route('**/sight', (route) =>
    route.fulfill({ status: 403, body: 'refused: a Host that nobody configured\n' }),
  );
  await page.reload();
  await page
    .getByRole('alert')
    .getByText('The proxy refuses: 403: refused: a Host that nobody configured')
    .waitFor();
  await page.getByText('Waiting for the first values…').waitFor();
  await page.unroute('**/sight');
  await page.getByRole('button', { name: 'Try now' }).click();
  await live(page);
  assert.equal(mock.world.callEvery, 300);
}
