// Keeps the last minutes of rates, one value a second for each key, for sparklines and charts. Pure.

/** Seconds that are kept. */
export const SPAN = 300;
/** Seconds that are shown at least, while there is less. */
const LEAST = 60;
/** Seconds without a value that are bridged: the proxy's second and ours are not the same one. */
const BRIDGED = 3;

/** Rings of values under keys, on one clock of whole seconds. */
export class History {
  #rings = new Map();
  #now = null;
  #began = 0;

  /** Takes the values of one moment: `entries` are pairs of a key and a number. */
  push(at, entries) {
    const second = Math.floor(at / 1000);
    if (!Number.isFinite(second)) return;
    const last = this.#now;
    if (last === null) this.#began = second;
    this.#now = last === null ? second : Math.max(second, last);
    if (last !== null && this.#now > last) this.#advance(last, this.#now);
    for (const [key, value] of entries) {
      let ring = this.#rings.get(key);
      if (!ring) this.#rings.set(key, (ring = { values: new Float32Array(SPAN).fill(NaN), seen: 0 }));
      ring.values[this.#now % SPAN] = value;
      ring.seen = this.#now;
    }
  }

  #advance(from, to) {
    for (const [key, ring] of this.#rings) {
      if (to - ring.seen >= SPAN) {
        this.#rings.delete(key);
        continue;
      }
      const bridge = to - from <= BRIDGED && ring.seen === from ? ring.values[from % SPAN] : NaN;
      for (let second = Math.max(from + 1, to - SPAN + 1); second <= to; second += 1) {
        ring.values[second % SPAN] = second < to ? bridge : NaN;
      }
    }
  }

  /** Seconds since the epoch, oldest first: the x values of every series. */
  times() {
    const now = this.#now ?? 0;
    const span = Math.min(SPAN, Math.max(LEAST, now - this.#began + 1));
    return Array.from({ length: span }, (_, at) => now - span + 1 + at);
  }

  /** The values of a key, oldest first, null where there is none. */
  series(key) {
    const ring = this.#rings.get(key);
    return this.times().map((second) => {
      const value = ring ? ring.values[((second % SPAN) + SPAN) % SPAN] : NaN;
      return Number.isNaN(value) ? null : value;
    });
  }
}
