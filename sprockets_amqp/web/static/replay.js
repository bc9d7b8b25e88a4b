// Replays what was recorded: see sprockets_amqp/web/replay.py for what is in `recorded`.

const recorded = JSON.parse(document.getElementById("recorded").textContent);
const byId = (id) => document.getElementById(id);
const SPEEDS = [1, 10, 60, 600, 3600];
const OUTCOMES = ["goes-out", "waits", "is-refused", "is-stored"];
// Steps that the table shows around the present one.
const AROUND = 12;
const COUNTED = ["published", "confirmed", "returned", "nacked", "failed", "unconfirmed", "waiting", "stored"];
let trace = null;
let cursor = recorded.from;
let playing = false;
let speed = 1;
let drawn = -1;

for (const each of recorded.traces) {
  // The states after each step, for going back as well.
  let states = each.states;
  each.after = [states];
  for (const step of each.steps) {
    for (const [machine, , , to] of step.pulls) if (to) states = { ...states, [machine]: to };
    each.after.push(states);
  }
  each.refusals = each.samples.flatMap(([at, now], index) => {
    if (!index || (now.failed ?? 0) <= (each.samples[index - 1][1].failed ?? 0)) return [];
    // They were counted since the sample before: where they began is where a publish was refused first.
    const begin = Math.max(each.begins, each.samples[index - 1][0]);
    const within = each.steps.filter((step) => step.at > begin && step.at <= at);
    const last = count(each.steps, begin, (step) => step.at) - 1;
    const refused = (last < 0 ? each.outcome : each.steps[last].outcome) === "is refused";
    return [refused ? begin : within.find((step) => step.outcome === "is refused")?.at ?? at];
  });
  const documented = [[each.begins, each.states.connection.split(" (")[0]]];
  each.steps.forEach((step, index) => {
    const state = each.after[index + 1].connection.split(" (")[0];
    if (state !== documented.at(-1)[1]) documented.push([step.at, state]);
  });
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.className = "timeline";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Time line of ${each.name}: its state, and messages published, refused, stored and waiting`);
  figure.append(canvas, element("figcaption", each.name));
  byId("lines").append(figure);
  each.line = new Timeline(canvas, each.samples, documented);
  canvas.addEventListener("pointerdown", (event) => {
    select(each);
    go(each.line.timeAt(event.clientX));
  });
  byId("trace").append(element("option", each.name));
}

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function clock(at) {
  const time = new Date(at * 1000);
  return `${time.toLocaleDateString("sv")} ${time.toLocaleTimeString("sv")}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

// How many of the list are at a time, or before it.
function count(list, at, timeOf) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(list[middle]) <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

const stepsUntil = (at) => count(trace.steps, at, (step) => step.at);
const sampleAt = (at) => trace.samples[count(trace.samples, at, (sample) => sample[0]) - 1]?.[1] ?? {};

function slug(state) {
  return state.replace(" (", "-").replaceAll(" ", "-").replace(")", "");
}

function light(frame, state, outcome) {
  const machine = frame.dataset.machine;
  const prefix = machine === "connection" ? "" : `${machine}-`;
  const wanted = [state.split(" (")[0], state].map((each) => byId(`${prefix}state-${slug(each)}`));
  for (const lit of frame.querySelectorAll(".present")) {
    lit.classList.remove("present");
    publishes(lit, lit.dataset.publish);
  }
  for (const group of wanted.filter(Boolean)) {
    group.classList.add("present");
    if (machine === "connection") publishes(group, outcome);
  }
}

function publishes(group, outcome) {
  const box = group.querySelector(":scope > .box");
  const words = group.querySelector(":scope > .outcome, :scope > .name > .outcome");
  if (!outcome) return;
  if (!box.classList.contains("mixed")) {
    box.classList.remove(...OUTCOMES);
    box.classList.add(outcome.replaceAll(" ", "-"));
  }
  if (words) words.textContent = `publish ${outcome}`;
}

function take(step) {
  for (const taken of document.querySelectorAll(".arrow.taken")) taken.classList.remove("taken");
  for (const [machine, , from, to] of step ? step.pulls : []) {
    if (!to) continue;
    const prefix = machine === "connection" ? "" : `${machine}-`;
    const sources = [from, from.split(" (")[0]];
    const arrow = sources.map((source) => byId(`${prefix}arrow-${slug(source)}-${slug(to)}`)).find(Boolean);
    if (arrow) arrow.classList.add("taken");
  }
}

function row(step, index, pull, depth) {
  const [machine, trigger, from, to, reason] = pull;
  const tr = document.createElement("tr");
  tr.classList.toggle("nested", depth > 0);
  tr.classList.toggle("ignored", !to);
  tr.classList.toggle("current", depth === 0 && index === drawn - 1);
  const change = to ? `${from} → ${to}` : `ignored while ${from}`;
  tr.append(
    element("td", depth ? "" : clock(step.at)),
    element("td", `${machine}.${trigger}`),
    element("td", change),
    element("td", reason ?? ""),
  );
  tr.addEventListener("click", () => go(step.at));
  return tr;
}

function draw() {
  const reached = stepsUntil(cursor);
  for (const each of recorded.traces) each.line.show(recorded.from, recorded.to, cursor);
  byId("cursor").value = String(Math.round(((cursor - recorded.from) / (recorded.to - recorded.from || 1)) * 1e6));
  byId("time").textContent = clock(cursor);
  const sample = sampleAt(cursor);
  byId("became").textContent = COUNTED.map((name) => `${name} ${(sample[name] ?? 0).toLocaleString("en")}`).join(", ");
  byId("back").disabled = cursor <= recorded.from;
  byId("step").disabled = byId("play").disabled = cursor >= recorded.to;
  byId("refusal").disabled = !trace.refusals.some((at) => at > cursor);
  if (reached === drawn) return;
  drawn = reached;
  const states = trace.after[reached];
  const step = trace.steps[reached - 1];
  const outcome = step ? step.outcome : trace.outcome;
  byId("description").textContent = states.connection;
  byId("publish").textContent = `a publish ${outcome}`;
  byId("card").dataset.outcome = outcome;
  byId("reason").textContent = step?.pulls[0][4] ?? "";
  for (const frame of document.querySelectorAll("[data-machine]")) light(frame, states[frame.dataset.machine], outcome);
  take(step);
  const rows = [];
  for (let index = Math.max(0, reached - AROUND); index < Math.min(trace.steps.length, reached + AROUND); index += 1) {
    trace.steps[index].pulls.forEach((pull, depth) => rows.push(row(trace.steps[index], index, pull, depth)));
  }
  byId("rows").replaceChildren(...rows);
}

function go(at) {
  cursor = Math.min(recorded.to, Math.max(recorded.from, at));
  draw();
}

function select(which) {
  trace = which;
  byId("trace").selectedIndex = recorded.traces.indexOf(which);
  drawn = -1;
  draw();
}

function play(wanted) {
  // From the end, it begins anew.
  if (wanted && cursor >= recorded.to) cursor = recorded.from;
  if (wanted && !playing) requestAnimationFrame((now) => advance(now, now));
  playing = wanted;
  byId("play").textContent = playing ? "Pause" : "Play";
  draw();
}

function advance(before, now) {
  if (!playing) return;
  go(cursor + ((now - before) / 1000) * speed);
  if (cursor >= recorded.to) play(false);
  else requestAnimationFrame((next) => advance(now, next));
}

function step(by) {
  play(false);
  const reached = stepsUntil(cursor);
  const here = trace.steps[reached - 1]?.at;
  // Steps of the same time are one.
  // Times are in microseconds.
  const before = count(trace.steps, here === cursor ? here - 1e-6 : cursor, (each) => each.at);
  const next = trace.steps[by > 0 ? reached : before - 1];
  go(next ? next.at : by > 0 ? recorded.to : recorded.from);
}

function refusal() {
  const next = trace.refusals.find((at) => at > cursor);
  if (next === undefined) return;
  play(false);
  go(next);
}

function hasten(by) {
  const index = Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(speed) + by));
  speed = SPEEDS[index];
  byId("speed").selectedIndex = index;
}

const KEYS = {
  " ": () => play(!playing),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  n: refusal,
  "+": () => hasten(1),
  "-": () => hasten(-1),
  Home: () => go(recorded.from),
  End: () => go(recorded.to),
};
document.addEventListener("keydown", (event) => {
  // A list has keys of its own, and a button is pressed with the space bar.
  const busy = event.target.closest("select") || (event.key === " " && event.target.closest("button"));
  if (busy || event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});
byId("play").addEventListener("click", () => play(!playing));
byId("step").addEventListener("click", () => step(1));
byId("back").addEventListener("click", () => step(-1));
byId("refusal").addEventListener("click", refusal);
byId("cursor").addEventListener("input", (event) => go(recorded.from + (event.target.value / 1e6) * (recorded.to - recorded.from)));
byId("trace").addEventListener("change", (event) => select(recorded.traces[event.target.selectedIndex]));
byId("speed").append(...SPEEDS.map((each) => element("option", `${each}×`)));
byId("speed").addEventListener("change", (event) => {
  speed = SPEEDS[event.target.selectedIndex];
});
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
byId("range").textContent = `from ${clock(recorded.from)} to ${clock(recorded.to)}, ${zone}`;
hasten(1);
select(recorded.traces[0]);
