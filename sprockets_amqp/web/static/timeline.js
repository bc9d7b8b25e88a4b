"use strict";

// A time line: the state of the connection, and the counters as areas, drawn on a canvas.

const AREAS = [
  // What there is at a time is drawn as it is; what has happened, as how many a second.
  { name: "published", label: "Published", counters: ["published"], gauge: false },
  { name: "refused", label: "Refused", counters: ["failed"], gauge: false },
  { name: "stored", label: "Stored", counters: ["stored"], gauge: true },
  { name: "waiting", label: "Waiting", counters: ["waiting"], gauge: true },
];
const LANE = 34;
const BAND = 14;
const GAP = 6;
const MARGIN = 92;

class Timeline {
  // `samples` are [seconds, {counter: count}], `states` are [seconds, name of the documented state]; both in order.
  constructor(canvas, samples = [], states = []) {
    this.canvas = canvas;
    this.samples = samples;
    this.states = states;
    this.known = new Map();
    this.from = this.to = 0;
    this.cursor = null;
    canvas.style.height = `${BAND + GAP + AREAS.length * (LANE + GAP)}px`;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(from, to, cursor = null) {
    this.from = from;
    this.to = Math.max(to, from + 1);
    this.cursor = cursor;
    this.draw();
  }

  // The time under a place on the canvas, in seconds.
  timeAt(clientX) {
    const edges = this.canvas.getBoundingClientRect();
    const share = (clientX - edges.left - MARGIN) / Math.max(1, edges.width - MARGIN);
    return this.from + Math.min(1, Math.max(0, share)) * (this.to - this.from);
  }

  // How many, or how many a second, in each of `count` spans of time: the same until something else is shown.
  spans(area, count) {
    const key = [this.from, this.to, count, this.samples.length, this.samples.at(-1)?.[0]].join();
    const known = this.known.get(area);
    if (known?.key === key) return known.found;
    const found = this.counted(area, count);
    this.known.set(area, { key, found });
    return found;
  }

  counted(area, count) {
    const found = new Array(count).fill(0);
    const width = (this.to - this.from) / count;
    let before = null;
    let gauge = 0;
    let next = 0;
    for (const [at, counters] of this.samples) {
      const value = area.counters.reduce((sum, name) => sum + (counters[name] ?? 0), 0);
      const span = Math.floor((at - this.from) / width);
      if (area.gauge) {
        // It is what it was until something else is known.
        for (; next < Math.min(span, count); next += 1) found[next] = Math.max(found[next], gauge);
        gauge = value;
        if (span >= 0 && span < count) found[span] = Math.max(found[span], value);
      } else if (before !== null && value > before[1]) {
        // What happened between two samples did so in all of that time.
        const first = Math.max(0, Math.min(span, Math.floor((before[0] - this.from) / width) + 1));
        const rate = (value - before[1]) / Math.max(at - before[0], width);
        for (let index = first; index <= Math.min(span, count - 1); index += 1) {
          found[index] = Math.max(found[index], rate);
        }
      }
      before = [at, value];
    }
    if (area.gauge && before !== null) {
      const last = Math.floor((before[0] - this.from) / width);
      for (; next <= Math.min(last, count - 1); next += 1) found[next] = Math.max(found[next], gauge);
    }
    return found;
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${style.fontFamily}`;
    context.textBaseline = "middle";
    const place = (at) => MARGIN + ((at - this.from) / (this.to - this.from)) * (width - MARGIN);

    context.fillStyle = colour("--soft");
    context.fillText("State", 0, BAND / 2);
    this.states.forEach(([at, state], index) => {
      const left = Math.max(MARGIN, place(at));
      const right = Math.min(width, place(index + 1 < this.states.length ? this.states[index + 1][0] : this.to));
      if (right <= MARGIN || left >= width || right <= left) return;
      context.fillStyle = colour(`--state-${state}`) || colour("--soft");
      // The shortest is to be seen, too.
      context.fillRect(left, 0, Math.max(1.5, right - left), BAND);
    });

    AREAS.forEach((area, index) => {
      const top = BAND + GAP + index * (LANE + GAP);
      const floor = top + LANE;
      const count = Math.max(1, Math.floor(width - MARGIN));
      const values = this.spans(area, count);
      const most = Math.max(...values);
      context.fillStyle = colour("--edge");
      context.fillRect(MARGIN, floor, width - MARGIN, 1);
      context.fillStyle = colour(`--area-${area.name}`);
      values.forEach((value, at) => {
        if (value > 0) {
          const size = Math.max(1.5, (value / most) * (LANE - 2));
          context.fillRect(MARGIN + at, floor - size, 1, size);
        }
      });
      context.fillStyle = colour("--soft");
      context.fillText(area.label, 0, top + LANE / 2 - 7);
      const unit = area.gauge ? "" : "/s";
      context.fillText(`max ${most >= 10 ? Math.round(most) : Number(most.toFixed(1))}${unit}`, 0, top + LANE / 2 + 8);
    });

    if (this.cursor === null) return;
    context.fillStyle = colour("--focus");
    context.fillRect(Math.min(width - 2, Math.max(MARGIN, place(this.cursor))) - 0.5, 0, 2, height);
  }
}
