// What is true of the page at any proxy with at least one route: every view by role and name, the keyboard alone, both
// colour schemes, narrow screens, the policy.

import assert from 'node:assert/strict';

import { audit, open } from './browser.mjs';

export const VIEWS = ['Graph', 'Tools', 'Calls', 'Streams', 'Sessions', 'Routes', 'Explain'];

export async function anyProxy({ browser, url, check, shot }) {
  await check('the policy forbids everything from elsewhere', () => policy(browser, url));
  for (const scheme of ['light', 'dark']) {
    await check(`every view opens, ${scheme}`, () => everyView(browser, url, shot, { scheme, width: 1280 }));
    await check(`every view opens on 400 pixels, ${scheme}`, () =>
      everyView(browser, url, shot, { scheme, width: 400 }),
    );
    await check(`text can be read, ${scheme}`, () => contrast(browser, url, scheme));
  }
  await check('the keyboard alone: skip link, tabs, focus in sight', () => tabs(browser, url));
  await check('the keyboard alone: sort, walk rows, open and close the panel', () => rows(browser, url));
  await check('the keyboard alone: explain a route', () => explain(browser, url, shot));
  await check('the address names the view, and the back button works', () => address(browser, url));
}

/** Waits until there are so many, for what is drawn comes a moment after what it is drawn for. */
export async function counted(locator, count) {
  if (count > 0) await locator.nth(count - 1).waitFor();
  await locator.nth(count).waitFor({ state: 'detached' });
}

/** Waits until the first values are there. */
export async function live(page) {
  await page
    .getByRole('status')
    .filter({ hasText: /^Live$/ })
    .waitFor();
}

/** Opens a view by its tab. */
export async function go(page, name) {
  await page.getByRole('tab', { name, exact: true }).click();
  const view = page.getByRole('tabpanel', { name, exact: true });
  await view.waitFor();
  return view;
}

/** Ends a page and fails if anything happened that must not. */
export async function clean(page) {
  const faults = await page.faults();
  await page.end();
  assert.deepEqual(faults, []);
}

async function policy(browser, url) {
  const page = await open(browser, url);
  await live(page);
  for (const part of [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]) {
    assert.ok(page.policy.includes(part), `${part} is missing in ${page.policy}`);
  }
  assert.ok(!page.policy.includes('unsafe'), page.policy);
  // That the policy is in force: what it forbids does not happen.
  const ran = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'globalThis.ran = true';
    document.head.append(script);
    return globalThis.ran === true;
  });
  assert.equal(ran, false);
  await page.end();
}

async function everyView(browser, url, shot, { scheme, width }) {
  const page = await open(browser, url, { scheme, width });
  await live(page);
  await settled(page);
  for (const name of VIEWS) {
    const view = await go(page, name);
    assert.equal(await page.getByRole('tabpanel').count(), 1, 'one view at a time');
    if (name === 'Explain') await view.getByRole('form', { name: 'Explain a request' }).waitFor();
    else {
      // A table with heads, or words that say why there is none. One look: what is live may change between two.
      const third = view.getByRole('table').first().getByRole('columnheader').nth(2);
      const notice = view.getByText(/^(No|Nobody|There is no) .*\.$/).first();
      await third.or(notice).first().waitFor();
    }
    // Some calls make a better picture; a proxy need not have any.
    if (name === 'Calls')
      await view
        .getByRole('rowheader')
        .nth(6)
        .waitFor({ timeout: 3000 })
        .catch(() => {});
    const [needs, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(needs <= has, `${name} is ${needs} pixels wide on ${has}`);
    assert.deepEqual(await audit(page), [], `${name}, by axe-core`);
    await shot(page, `${name.toLowerCase()}-${scheme}-${width}`);
  }
  assert.equal(
    await page.evaluate(() => document.getAnimations().length),
    0,
    'nothing moves where that is not wanted',
  );
  await clean(page);
}

/** Two events of `sight` later every chart has a line. */
async function settled(page) {
  const at = () => page.locator('#at').textContent();
  for (let turn = 0; turn < 2; turn += 1) {
    const before = await at();
    await page.waitForFunction((old) => document.getElementById('at').textContent !== old, before);
  }
}

async function contrast(browser, url, scheme) {
  const page = await open(browser, url, { scheme });
  const ratios = await page.evaluate(() => {
    const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const luminance = (name) => {
      paint.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
      paint.fillRect(0, 0, 1, 1);
      const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((value) => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pairs = ['text', 'muted', 'accent', 'warn', 'bad', 'ok-text', 'ok'].flatMap((ink) =>
      ['page', 'surface', 'raised'].map((ground) => [ink, ground]),
    );
    pairs.push(['accent-text', 'accent'], ['text', 'bad-faint']);
    return pairs.map(([ink, ground]) => {
      const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
      return [`${ink} on ${ground}`, (light + 0.05) / (dark + 0.05)];
    });
  });
  // WCAG 2.2, 1.4.3.
  for (const [pair, ratio] of ratios) assert.ok(ratio >= 4.5, `${pair} has a contrast of ${ratio.toFixed(2)}`);
  await clean(page);
}

/** The focused element: its role or tag, its name, and whether one can see that it has the focus. */
export function focused(page) {
  return page.evaluate(() => {
    const node = document.activeElement;
    const inGraph = node.closest('svg') !== null;
    const style = getComputedStyle(node);
    return {
      what: node.getAttribute('role') ?? node.tagName.toLowerCase(),
      id: node.id,
      name: node.getAttribute('aria-label') ?? node.textContent.trim().slice(0, 60),
      seen: inGraph || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2),
    };
  });
}

/** Presses Tab until the focus is where `is` says, over the end of the page at most once. */
export async function tabTo(page, is, most = 40) {
  let left = false;
  for (let step = 0; step < most; step += 1) {
    await page.keyboard.press('Tab');
    const now = await focused(page);
    if (now.what === 'body') {
      // Behind the last stop the browser itself has it, once; the next one is the first of the page.
      assert.ok(!left, `Tab left the page twice and never came to ${is}`);
      left = true;
      continue;
    }
    assert.ok(now.seen, `the focus on ${now.what} ${now.name} cannot be seen`);
    if (is(now)) return now;
  }
  throw new Error(`Tab never came to ${is}`);
}

async function tabs(browser, url) {
  const page = await open(browser, url, { hash: '#streams' });
  await live(page);
  await page.keyboard.press('Tab');
  assert.equal((await focused(page)).name, 'Skip to the view');
  await page.keyboard.press('Enter');
  assert.equal((await focused(page)).id, 'main');
  await page.getByRole('tab', { name: 'Streams', selected: true }).waitFor();
  await go(page, 'Graph');
  for (const name of [...VIEWS.slice(1), VIEWS[0]]) {
    await page.keyboard.press('ArrowRight');
    assert.equal((await focused(page)).name, name);
    await page.getByRole('tab', { name, selected: true }).waitFor();
    await page.getByRole('tabpanel', { name, exact: true }).waitFor();
  }
  await page.keyboard.press('End');
  await page.getByRole('tab', { name: 'Explain', selected: true }).waitFor();
  await page.keyboard.press('Home');
  await page.getByRole('tab', { name: 'Graph', selected: true }).waitFor();
  // One tab stop for all tabs, and each stop of the view can be seen, until the browser itself has the focus.
  const stops = [];
  for (;;) {
    await page.keyboard.press('Tab');
    const now = await focused(page);
    if (now.what === 'body') break;
    assert.ok(now.seen, `the focus on ${now.what} ${now.name} cannot be seen`);
    assert.notEqual(now.what, 'tab');
    stops.push(now);
    assert.ok(stops.length < 60, 'the rows of a table are one stop');
  }
  assert.ok(
    stops.some(({ name }) => /^(Who calls whom|Caller)/.test(name)) || stops.length > 1,
    JSON.stringify(stops),
  );
  await clean(page);
}

async function rows(browser, url) {
  const page = await open(browser, url, { hash: '#routes' });
  await live(page);
  const table = page.getByRole('table', { name: 'Routes, and hosts that are not routable' });
  await table.getByRole('button').last().waitFor();
  await tabTo(page, ({ name }) => name === 'Host');
  await page.keyboard.press('Enter');
  await table.locator('[aria-sort=descending]').getByText('Host').waitFor();
  await page.keyboard.press('Enter');
  await table.locator('[aria-sort=ascending]').getByText('Host').waitFor();
  // The rows follow their mark in the next frame.
  await page.evaluate(() => new Promise((drawn) => { requestAnimationFrame(drawn); }));
  const first = await table.getByRole('rowheader').first().textContent();
  await tabTo(page, ({ name }) => name === first);
  const count = Number(await table.getAttribute('aria-rowcount')) - 1;
  await page.keyboard.press('End');
  assert.equal(
    await page.evaluate(() => document.activeElement.closest('tr').getAttribute('aria-rowindex')),
    String(count + 1),
  );
  await page.keyboard.press('Home');
  assert.equal((await focused(page)).name, first);
  if (count > 1) {
    await page.keyboard.press('ArrowDown');
    assert.notEqual((await focused(page)).name, '');
    await page.keyboard.press('ArrowUp');
  }
  await page.keyboard.press('Enter');
  const panel = page.getByRole('complementary');
  await panel.getByRole('heading', { level: 2 }).waitFor();
  assert.equal((await focused(page)).id, 'panel-title');
  await page.keyboard.press('Escape');
  await panel.waitFor({ state: 'hidden' });
  assert.equal((await focused(page)).name, first);
  await clean(page);
}

async function explain(browser, url, shot) {
  const page = await open(browser, url, { hash: '#routes' });
  await live(page);
  const search = page.getByRole('combobox', { name: 'Show' });
  await search.focus();
  await search.selectOption('yes');
  await page.getByRole('table').getByRole('rowheader').first().waitFor();
  await tabTo(page, ({ what, name }) => what === 'button' && /\..*/.test(name));
  await page.keyboard.press('Enter');
  await tabTo(page, ({ name }) => name === 'Explain');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: /^(Routed to|Refused with) / }).waitFor();
  await page.getByText('What was considered').waitFor();
  await shot(page, 'explain-answer');
  await page.getByRole('textbox', { name: 'Path' }).fill('no-path');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'This is no request' }).waitFor();
  await clean(page);
}

async function address(browser, url) {
  const page = await open(browser, url, { hash: '#streams' });
  await live(page);
  await page.getByRole('tab', { name: 'Streams', selected: true }).waitFor();
  await go(page, 'Routes');
  assert.match(page.url(), /#routes$/);
  await page.goBack();
  await page.getByRole('tab', { name: 'Streams', selected: true }).waitFor();
  await page
    .getByRole('searchbox', { name: 'Caller' })
    .or(page.getByLabel('Caller', { exact: true }))
    .first()
    .fill('nobody');
  await page.waitForFunction(() => location.hash === '#streams?caller=nobody');
  await page.getByRole('button', { name: 'Clear', exact: true }).click();
  await page.waitForFunction(() => location.hash === '#streams');
  await clean(page);
}
