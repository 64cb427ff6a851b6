// The browser of the tests: playwright-core as package-lock.json pins it, with the system's Chromium, and pages that
// write down whatever must not happen.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const WORK = fileURLToPath(new URL('../../.work/', import.meta.url));
/** Milliseconds that a browser waits for what it is asked. */
export const PATIENCE = 10_000;

/** What package-lock.json pins, installed once for each lock file, under .work/. */
function installed() {
  const lock = readFileSync(join(HERE, 'package-lock.json'));
  const place = join(WORK, `node-page-${createHash('sha256').update(lock).digest('hex').slice(0, 12)}`);
  if (!existsSync(place)) {
    const fresh = `${place}.${process.pid}`;
    mkdirSync(fresh, { recursive: true });
    for (const file of ['package.json', 'package-lock.json']) cpSync(join(HERE, file), join(fresh, file));
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts'], {
      cwd: fresh,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (existsSync(place)) rmSync(fresh, { recursive: true });
    else renameSync(fresh, place);
  }
  return createRequire(join(place, '/'));
}

/** What axe-core, which knows the rules of accessibility, finds wrong on a page: a line for each. */
export async function audit(page) {
  // As text, because the policy would refuse the script.
  await page.evaluate(readFileSync(installed().resolve('axe-core/axe.min.js'), 'utf8'));
  return page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(' ')}`);
  });
}

/** Starts Chromium without a window. */
export function launch() {
  const executablePath =
    process.env.CHROMIUM ??
    ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
  if (!executablePath)
    throw new Error("there is no Chromium; install Debian's package chromium, or name one in CHROMIUM");
  const root = process.getuid?.() === 0;
  return installed()('playwright-core').chromium.launch({ executablePath, args: root ? ['--no-sandbox'] : [] });
}

/**
 * A page of its own at `url`. `page.faults()` are the errors of the console, faults of scripts, violations of the
 * Content-Security-Policy and requests that leave the origin. `away` lets requests fail.
 */
export async function open(
  browser,
  url,
  { width = 1280, height = 800, scheme = 'light', away = false, hash = '' } = {},
) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    reducedMotion: 'reduce',
  });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const origin = new URL(url).origin;
  const faults = [];
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    if (away && /Failed to load resource/.test(message.text())) return;
    faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`script: ${error.stack}`));
  page.on('request', (request) => {
    const target = request.url();
    if (!target.startsWith('data:') && new URL(target).origin !== origin) faults.push(`request to ${target}`);
  });
  page.on('response', (response) => {
    if (response.status() >= 400 && !away) faults.push(`${response.status()} for ${response.url()}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      globalThis.violations.push(
        `${event.violatedDirective}: ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`,
      );
    });
  });
  const response = await page.goto(`${url}${hash}`);
  page.policy = response.headers()['content-security-policy'] ?? '';
  page.faults = async () => [
    ...faults,
    ...(await page.evaluate(() => globalThis.violations)).map((one) => `policy: ${one}`),
  ];
  page.end = () => context.close();
  return page;
}
