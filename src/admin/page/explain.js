// The form that asks how a request would be routed, and the answer in words.

import { choice, el, facts, field, notice, plainTable } from './dom.js';
import { ask } from './live.js';

const METHODS = ['POST', 'GET', 'DELETE', 'PUT', 'PATCH', 'HEAD', 'OPTIONS'];

export class Explain {
  #fields = {
    host: field('Host (x-kagent-host)', { placeholder: 'tools.team-a', list: 'known-routes' }),
    path: field('Path', { value: '/mcp', required: true }),
    method: choice(
      'Method',
      METHODS.map((one) => [one, one]),
    ),
    from: field('From address', { placeholder: 'of the calling pod', inputmode: 'text' }),
    authority: field('Host header', { placeholder: 'for default routes' }),
    listener: field('Listener', { placeholder: 'the first' }),
  };
  #answer = el('div', { class: 'answer', 'aria-live': 'polite' });
  #turn = 0;

  constructor(_app, place) {
    const nodes = Object.values(this.#fields).map((one) => one.node);
    const more = el(
      'details',
      {},
      el('summary', {}, 'For default routes'),
      el('div', { class: 'controls' }, nodes.slice(4)),
    );
    const form = el(
      'form',
      {
        class: 'explain',
        'aria-label': 'Explain a request',
        submit: (event) => {
          event.preventDefault();
          this.#ask();
        },
      },
      el(
        'div',
        { class: 'controls' },
        nodes.slice(0, 4),
        el('button', { type: 'submit', class: 'primary' }, 'Explain'),
      ),
      more,
    );
    this.#answer.append(
      notice(
        'How would a request be routed?',
        'Name its host and path: the answer says where it goes and why, or why it is refused and what to do.',
      ),
    );
    place.append(form, this.#answer);
  }

  show() {}

  update() {}

  /** Asks about a request that another view names. */
  about(question) {
    const from = (question.from ?? '').replace(/^\[?(.*?)\]?:\d+$/, '$1');
    for (const [name, value] of Object.entries({ ...question, from })) {
      if (this.#fields[name]) this.#fields[name].input.value = value ?? '';
    }
    this.#ask();
  }

  async #ask() {
    const turn = (this.#turn += 1);
    const query = new URLSearchParams();
    for (const [name, { input }] of Object.entries(this.#fields)) {
      const value = input.value.trim();
      if (value) query.set(name, value);
    }
    this.#answer.setAttribute('aria-busy', 'true');
    let nodes;
    try {
      nodes = inWords(await ask(`explain?${query}`));
    } catch (error) {
      nodes = [verdict('bad', 'The question cannot be answered', error.message)];
    }
    // A later question may have been answered first.
    if (turn !== this.#turn) return;
    this.#answer.removeAttribute('aria-busy');
    this.#answer.replaceChildren(...nodes);
  }
}

function verdict(tone, title, ...lines) {
  return el(
    'div',
    { class: 'verdict', 'data-tone': tone },
    el('h2', {}, title),
    lines.filter(Boolean).map((line) => el('p', {}, line)),
  );
}

function inWords(answer) {
  const head = answer.error
    ? [verdict('bad', 'This is no request', answer.error)]
    : answer.reason
      ? refused(answer)
      : routed(answer);
  const chain = answer.chain ?? [];
  const leftOut = answer.leftOut ?? [];
  const raw = el(
    'details',
    {},
    el('summary', {}, 'The whole answer as JSON'),
    el('pre', { tabindex: 0 }, JSON.stringify(answer, null, 2)),
  );
  return [
    ...head,
    answer.note && el('p', { class: 'note' }, answer.note),
    facts([
      ['Caller', answer.caller],
      ['Query that is added', answer.query],
    ]),
    chain.length > 0 &&
      plainTable(
        'What was considered',
        ['Candidate', 'Verdict'],
        chain.map((one) => [one.candidate, one.verdict]),
      ),
    leftOut.length > 0 &&
      plainTable(
        'Addresses that are not dialled',
        ['Address', 'Why'],
        leftOut.map((one) => [one.candidate ?? one.address, one.verdict ?? one.why]),
      ),
    answer.applies && limits(answer.applies),
    answer.values && settings(answer.values),
    raw,
  ].filter(Boolean);
}

function refused(answer) {
  const candidates = (answer.candidates ?? []).map((one) => (typeof one === 'string' ? one : JSON.stringify(one)));
  return [
    verdict(
      'bad',
      `Refused with ${answer.status}: ${answer.reason}`,
      answer.detail,
      answer.action && `What to do: ${answer.action}.`,
    ),
    facts([['Candidates', candidates.join(', ')]]),
  ];
}

function routed(answer) {
  const { route = {}, targets = [] } = answer;
  const where = targets.length ? targets.join(', ') : 'a route without targets';
  const name = `${route.host ?? ''}${route.prefix && route.prefix !== '/' ? route.prefix : ''}`;
  return [verdict('ok', `Routed to ${where}`, `By the ${route.kind} route ${name}: ${route.why}.`)];
}

/** `0` is how the configuration says that there is no limit. */
const limit = (value) => (value === '0' ? 'no limit' : value);

function limits(applies) {
  const of = (kind) => {
    const value = applies[kind];
    if (!value || typeof value === 'string') return value;
    const set = Object.entries(value).filter(([, one]) => one !== '0');
    return set.length ? set.map(([name, one]) => `${name} ${one}`).join(', ') : 'no limit';
  };
  return el(
    'section',
    { 'aria-label': 'What applies' },
    el('h3', {}, 'What applies to it'),
    facts([
      ['Connect limit', limit(applies.connect)],
      ['Waits for an endpoint', applies.hold],
      ['A response', of('unary')],
      ['An event stream', of('eventStream')],
      ['An upgrade', of('upgrade')],
      ['Agent card', applies.card],
      ['Keep-alive', applies.keepAlive],
      ['Sessions', applies.sessions],
      ['A session waits', applies.holdSession],
    ]),
  );
}

function settings(values) {
  const rows = Object.entries(values).map(([name, one]) => [name, plain(one.value), one.source]);
  return el(
    'details',
    {},
    el('summary', {}, `Settings of the route, and where each comes from (${rows.length})`),
    plainTable('Settings', ['Setting', 'Value', 'Source'], rows),
  );
}

function plain(value) {
  if (value === null) return '–';
  if (Array.isArray(value)) return value.map(plain).join(', ') || '–';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
