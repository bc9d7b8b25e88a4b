"use strict";

// Follows the client: each event has the whole status, and the changes since the previous event.

const KEPT = 100;
// Seconds that the time line shows: at most, and at least.
const SPAN = 600;
const SHORTEST = 60;
// The application sends something every 15 seconds.
const SILENCE = 40000;
const AGAIN = 3000;
const OUTCOMES = ["goes-out", "waits", "is-refused", "is-stored"];
const CLOSED = "Closed on request; it will not reconnect by itself.";
const LOST = "The application is not responding; this is the last known state. Trying again.";

const byId = (id) => document.getElementById(id);
let source = null;
let watchdog = null;
let fresh = true;
let kept = null;
let live = true;
let since = Date.parse(byId("since").dateTime);
let next = NaN;
// The server's clock minus this one's: durations must be right even if the two differ.
let skew = 0;
const line = new Timeline(byId("timeline"));
byId("timeline-section").hidden = false;

function show(id, text) {
  const element = byId(id);
  // Screen readers announce this region: do not touch it if nothing changed.
  if (element.textContent !== text) element.textContent = text;
}

function readable(time) {
  return time.replace("T", " ").replace("Z", "");
}

function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [unit, size] of units) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count || (unit === "s" && !parts.length)) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

function tick() {
  const end = line.samples.at(-1)?.[0];
  if (end) line.show(Math.max(end - SPAN, Math.min(end - SHORTEST, line.states[1]?.[0] ?? end)), end);
  // Without news from the application, the state may have ended.
  if (document.body.classList.contains("stale")) return;
  const now = Date.now() + skew;
  show("elapsed", `For ${duration((now - since) / 1000)},`);
  show("next", next > now ? `Next attempt in ${duration((next - now) / 1000)}` : "");
}

function cell(row, name, ...content) {
  const td = document.createElement("td");
  td.setAttribute("role", "cell");
  td.className = name;
  td.append(...content);
  row.append(td);
}

function element(tag, text, properties) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function row(change) {
  const tr = document.createElement("tr");
  tr.setAttribute("role", "row");
  cell(tr, "at", element("time", readable(change.at), { dateTime: change.at }));
  const from = element("span", change.source, { className: `state-${change.source}` });
  const to = element("span", change.dest, { className: `state-${change.dest}` });
  cell(tr, "change", from, " → ", to);
  cell(tr, "trigger", element("code", change.trigger));
  cell(tr, "reason", change.reason);
  return tr;
}

function addChanges(changes) {
  // The first event of a connection has all changes that are kept: nothing is missed while it was lost.
  if (fresh && JSON.stringify(changes) === JSON.stringify(kept)) return;
  kept = fresh ? changes : [...kept, ...changes].slice(-KEPT);
  const rows = byId("rows");
  const newest = changes.map(row).reverse();
  if (fresh) rows.replaceChildren(...newest);
  else rows.prepend(...newest);
  while (rows.children.length > KEPT) rows.lastElementChild.remove();
  byId("none").hidden = rows.children.length > 0;
}

function publishes(group, outcome) {
  // The group's own box and words, not those of its substates.
  const box = group.querySelector(":scope > .box");
  const words = group.querySelector(":scope > .outcome, :scope > .name > .outcome");
  if (!box.classList.contains("mixed")) {
    box.classList.remove(...OUTCOMES);
    box.classList.add(outcome.replaceAll(" ", "-"));
  }
  if (words) words.textContent = `publish ${outcome}`;
}

function light(state, substate, outcome) {
  // A state without substates has none to highlight.
  const ids = [`state-${state}`, `state-${state}-${substate.replaceAll(" ", "-")}`];
  const present = ids.map(byId).filter(Boolean);
  for (const other of document.querySelectorAll("#picture .present")) {
    if (present.includes(other)) continue;
    other.classList.remove("present");
    publishes(other, other.dataset.publish);
  }
  for (const group of present) {
    publishes(group, outcome);
    if (group.classList.contains("present")) continue;
    group.classList.add("present");
    bringIntoView(group);
  }
}

function bringIntoView(present) {
  // On a narrow screen the picture is wider than its frame; the page itself stays where it is.
  const frame = byId("picture");
  const place = present.getBoundingClientRect();
  const edges = frame.getBoundingClientRect();
  frame.scrollLeft += place.left + place.width / 2 - (edges.left + edges.width / 2);
}

function showStatus(status) {
  skew = Date.parse(status.now) - Date.now();
  since = Date.parse(status.since);
  next = Date.parse(status.next_attempt);
  byId("card").dataset.outcome = status.outcome;
  show("description", status.description);
  show("substate", status.substate && ` · ${status.substate}`);
  show("publish", status.publish);
  show("reason", status.reason);
  show("broker", status.broker);
  show("doubt", status.doubt);
  show("since", readable(status.since));
  byId("since").dateTime = status.since;
  for (const [name, count] of Object.entries(status.counters)) {
    show(`counter-${name}`, count.toLocaleString("en"));
  }
  document.title = `${status.description} · ${status.client} · RabbitMQ connection`;
  light(status.state, status.substate, status.outcome);
  if (status.changes.length || fresh) addChanges(status.changes);
  note(Date.parse(status.now) / 1000, status);
  fresh = false;
  live = status.live;
  tick();
}

// The counters are known since this page was opened, and the changes as far as they are kept.
function note(now, status) {
  line.samples.push([now, status.counters]);
  while (line.samples.length > 1 && line.samples[1][0] < now - SPAN) line.samples.shift();
  line.states = kept.map((change) => [Date.parse(change.at) / 1000, change.dest]);
  line.states.unshift([0, kept[0]?.source ?? status.state]);
}

function follow() {
  clearTimeout(watchdog);
  if (source) source.close();
  fresh = true;
  source = new EventSource("events");
  source.onmessage = (event) => {
    watch();
    showStatus(JSON.parse(event.data));
    tell(false, live ? "Live" : CLOSED);
  };
  source.onerror = () => {
    fresh = true;
    // The application ends the stream once its client is closed for good; the next answer says whether it still is.
    if (live) tell(true, LOST);
    live = true;
    // Browsers give up after an answer that is not a stream, from a proxy for example.
    if (source.readyState === EventSource.CLOSED) again(AGAIN);
  };
  watch();
}

function watch() {
  again(SILENCE);
}

function again(delay) {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => {
    if (delay === SILENCE) tell(true, LOST);
    follow();
  }, delay);
}

function tell(stale, text) {
  document.body.classList.toggle("stale", stale);
  show("link", text);
}

for (const present of document.querySelectorAll("#picture .present")) bringIntoView(present);
setInterval(tick, 1000);
tick();
follow();
