// Charts by uPlot in the page's own colours: small ones for rows and tiles, a large one for details.
// uPlot comes as a script of its own, which defines one global name.

import { clock, rate } from './format.js';

const { uPlot } = globalThis;
/** Every chart that is shown: all are drawn anew when the colours change. */
const charts = new Set();

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  forget();
  for (const chart of charts) chart.redraw();
});

/** A chart listens to the window until it is destroyed, so those whose rows are gone are. */
function forget() {
  for (const chart of charts) {
    if (chart.root.isConnected) continue;
    chart.destroy();
    charts.delete(chart);
  }
}

function remember(chart) {
  forget(); // Before it is added, for it may stand in a row that is not yet in its table.
  charts.add(chart);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const from = (name) => () => colour(name);
const scaled = (least) => (_, low, high) => [0, Math.max(high ?? 0, least) * 1.05];

/** A line of errors at zero says nothing. */
function drawn(times, values, errors) {
  return [times, values, errors.some((value) => value > 0) ? errors : errors.map(() => null)];
}

/** A line without axes in `place`: calls in the accent's colour, errors in theirs. `set(data)` draws. */
export class Sparkline {
  #chart = null;
  #place;
  #size;

  constructor(place, width, height) {
    this.#place = place;
    this.#size = { width, height };
    place.setAttribute('aria-hidden', 'true');
  }

  set(times, values, errors) {
    const data = drawn(times, values, errors);
    if (this.#chart) {
      this.#chart.setData(data);
      return;
    }
    this.#chart = new uPlot(
      {
        ...this.#size,
        padding: [2, 1, 2, 1],
        cursor: { show: false },
        select: { show: false },
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false, range: (_, low, high) => [low, high] }, y: { range: scaled(0.01) } },
        series: [
          {},
          { stroke: from('accent'), fill: from('accent-faint'), width: 1.25, points: { show: false } },
          { stroke: from('bad'), width: 1.25, points: { show: false } },
        ],
      },
      data,
      this.#place,
    );
    remember(this.#chart);
  }
}

/** Calls and errors each second over the last minutes, with axes. */
export class RateChart {
  #chart = null;
  #place;

  constructor(place) {
    this.#place = place;
    place.setAttribute('role', 'img');
    place.setAttribute(
      'aria-label',
      'Calls and errors each second over the last five minutes; the numbers are beside it',
    );
  }

  set(times, values, errors) {
    const data = drawn(times, values, errors);
    if (this.#chart) {
      this.#chart.setData(data);
      return;
    }
    const axis = {
      stroke: from('muted'),
      font: '11px system-ui, sans-serif',
      grid: { stroke: from('line'), width: 1 },
      ticks: { show: false },
    };
    this.#chart = new uPlot(
      {
        width: Math.max(220, this.#place.clientWidth),
        height: 150,
        cursor: { show: false },
        legend: { show: false },
        scales: { x: { time: false, range: (_, low, high) => [low, high] }, y: { range: scaled(0.01) } },
        axes: [
          {
            ...axis,
            size: 24,
            space: 80,
            values: (_, at) => at.map((second) => clock(second * 1000).slice(0, 5)),
            incrs: [60, 120, 300],
          },
          { ...axis, size: 52, values: (_, at) => at.map((value) => rate(value)) },
        ],
        series: [
          {},
          { stroke: from('accent'), fill: from('accent-faint'), width: 1.5, points: { show: false } },
          { stroke: from('bad'), width: 1.5, points: { show: false } },
        ],
      },
      data,
      this.#place,
    );
    remember(this.#chart);
  }
}
