// One stream of server-sent events that comes back by itself: says whether it is live, and why not.

/** Milliseconds until a new try, doubled up to the last. The proxy ends each connection now and then, so the first
 * is short. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
/** Milliseconds for which a stream may be gone before that is said: a connection that ended is not a lost proxy. */
const GRACE = 2500;

/**
 * `url` is asked anew at each try. `events` has a function for each name of an event, given its parsed data. `quiet`
 * are the milliseconds after which silence means that the proxy is gone; none for a stream that may be silent.
 * `onState` is told `{state, since, why}` with a state of `loading`, `live`, `away` or `off`.
 */
export class Feed {
  #source = null;
  #timer = null;
  #watch = null;
  #grace = null;
  #pause = FIRST_PAUSE;
  #options;
  #wanted = false;
  state = { state: 'off', since: Date.now(), why: '' };

  constructor(options) {
    this.#options = options;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#say('loading');
    this.#open();
  }

  stop() {
    this.#wanted = false;
    this.#close();
    clearTimeout(this.#grace);
    this.#grace = null;
    this.#say('off');
  }

  /** Tries now, and with what `url` says now. */
  retry() {
    if (!this.#wanted) return;
    this.#pause = FIRST_PAUSE;
    this.#close();
    this.#open();
  }

  #open() {
    const source = new EventSource(this.#options.url());
    this.#source = source;
    source.onopen = () => {
      if (!this.#options.quiet) this.#alive();
    };
    source.onerror = () => this.#lost();
    for (const [name, take] of Object.entries(this.#options.events)) {
      source.addEventListener(name, (event) => {
        let data;
        try {
          data = JSON.parse(event.data);
        } catch {
          return;
        }
        this.#alive();
        take(data);
      });
    }
    this.#heed();
  }

  #alive() {
    this.#pause = FIRST_PAUSE;
    clearTimeout(this.#grace);
    this.#grace = null;
    this.#heed();
    if (this.state.state !== 'live') this.#say('live');
  }

  #heed() {
    clearTimeout(this.#watch);
    if (this.#options.quiet) this.#watch = setTimeout(() => this.#lost(), this.#options.quiet);
  }

  #lost() {
    this.#close();
    if (!this.#wanted) return;
    if (this.state.state !== 'away' && this.#grace === null) {
      this.#grace = setTimeout(() => this.#away(), GRACE);
    }
    this.#timer = setTimeout(() => this.#open(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  async #away() {
    this.#say('away');
    // An EventSource does not tell why it failed.
    const why = await refusal(this.#options.url());
    if (this.state.state === 'away' && why) this.#say('away', why);
  }

  #close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#source?.close();
    this.#source = null;
  }

  #say(state, why = '') {
    const since = state === this.state.state ? this.state.since : Date.now();
    this.state = { state, since, why };
    this.#options.onState(this.state);
  }
}

/** What the proxy says where it answers and refuses; empty where it does not answer. */
async function refusal(url) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 2000);
  try {
    const answer = await fetch(url, { signal: stop.signal, headers: { accept: 'text/event-stream' } });
    if (answer.ok) return '';
    return `${answer.status}: ${(await answer.text()).trim().slice(0, 300)}`;
  } catch {
    return '';
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** JSON of the API; fails with a sentence that says why. */
export async function ask(path, patience = 15_000) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), patience);
  try {
    const answer = await fetch(path, { signal: stop.signal, headers: { accept: 'application/json' } });
    if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 500) || `status ${answer.status}`);
    return await answer.json();
  } catch (error) {
    if (stop.signal.aborted) throw new Error('The proxy does not answer.');
    if (error instanceof TypeError) throw new Error('The proxy cannot be reached.');
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
