// The page of the admin listener in a real browser.
//
//   node tests/page/run.mjs [--shots DIR]                                   beside a mock of the admin API
//   node tests/page/run.mjs --url http://127.0.0.1:9090/ [--shots DIR]      at a running proxy
//   node tests/page/run.mjs --url http://127.0.0.1:9090/ --demo             at a running `kagent-proxy demo`
//   node tests/page/run.mjs --only keyboard                                 checks with these words in their names
//
// Prints `ok NAME` and `not ok NAME: why` lines and, last, `N passed, N failed`. At a proxy only what is true of any
// proxy with a route is checked, and with --demo what the demo does; what needs known values is in known.mjs.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { anyProxy } from './any.mjs';
import { launch } from './browser.mjs';
import { demo } from './demo.mjs';
import { files, known } from './known.mjs';
import { Mock } from './mock.mjs';

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    demo: { type: 'boolean' },
    shots: { type: 'string' },
    only: { type: 'string' },
  },
});
let passed = 0;
let failed = 0;

/** Runs one check; what it throws is why it failed. */
async function check(name, run) {
  if (values.only && !name.includes(values.only)) return;
  try {
    await run();
    passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(
      `not ok ${name}: ${String(error.message)
        .replace(/\u001b\[\d+m/g, '')
        .split('\n')
        .slice(0, 6)
        .join(' | ')}`,
    );
  }
}

/** Keeps a picture where --shots says. */
async function shot(page, name) {
  if (!values.shots) return;
  mkdirSync(values.shots, { recursive: true });
  await page.screenshot({ path: join(values.shots, `${name}.png`) });
}

const browser = await launch();
try {
  if (values.url) {
    const url = new URL('/', values.url).href;
    await anyProxy({ browser, url, check, shot });
    if (values.demo) await demo({ browser, url, check });
  } else {
    await files({ check });
    const mock = new Mock('demo');
    await mock.start();
    await anyProxy({ browser, url: mock.url, check, shot });
    await mock.stop();
    await known({ browser, check, shot });
  }
} finally {
  await browser.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
