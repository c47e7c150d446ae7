// What each worker is at, and has been at: a strip of time for each, the last minutes. Also what it uses.

import { askForHistory, labelOf, Question, resize } from "../asking.js";
import { confirm } from "../confirm.js";
import { byId, make, say, setAttribute, setText, show } from "../dom.js";
import { bytes, count, duration, moment, plural } from "../format.js";
import { tipOver } from "../tip.js";

const STATES = { starting: "is starting", dying: "is being ended", down: "is down; starts again", absent: "has no room on this machine" };
const KINDS = { running: "This job", other: "Another job", loading: "Setup", mark: "Crashed or killed" };
const COMPACT = 9; // workers from which on a row is low
const DENSE = 25; // and from which on it has no words beside it
const MOST_DOTS = 64;
const NEAR = 5; // pixels from a mark at which it is meant
const PAUSE = 1000; // milliseconds between two questions for what they did
const GAP = 6000; // milliseconds between two looks at a worker, at most, between which its use is drawn

export class WorkersView {
  #rows = new Map(); // by lane
  #span = 60;
  #shown = "work"; // what the strips show: "work", "cpu" or "memory"
  #size = 0; // workers that there are to be
  #wanted = null; // the same, once a button was pressed, until the program says so
  #asking = 0;
  #history = new Question(() => PAUSE, () => this.onChange());
  #seen = null; // notices which rows can be seen: only their strips are drawn

  constructor(keys, onChange) {
    this.onChange = onChange;
    this.list = byId("lanes");
    this.#seen = new IntersectionObserver((changes) => {
      for (const { target, isIntersecting } of changes) target.toggleAttribute("data-seen", isIntersecting);
      onChange();
    }, { root: this.list });
    this.fewer = byId("fewer");
    this.more = byId("more");
    this.fewer.addEventListener("click", () => this.#resize(this.#wantedSize - 1));
    this.more.addEventListener("click", () => this.#resize(this.#wantedSize + 1));
    for (const [key, button, step] of [["+", this.more, 1], ["-", this.fewer, -1]]) {
      keys.on(key, () => button.checkVisibility() && !button.disabled && this.#askBeforeKey(step));
    }
    this.open = byId("workers-open");
    this.open.addEventListener("click", () => {
      setAttribute(this.open, "aria-expanded", String(this.open.getAttribute("aria-expanded") !== "true"));
      this.onChange();
    });
    this.#choice("span", (value) => (this.#span = Number(value)));
    this.#choice("strip", (value) => (this.#shown = value));
    const key = (name, text) => make("span", { class_: "key", children: [make("i", { "data-kind": name }), text] });
    byId("legend").replaceChildren(...Object.entries(KINDS).map(([name, text]) => key(name, text)));
  }

  #choice(name, take) {
    const buttons = document.querySelectorAll(`[data-${name}]`);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        take(button.dataset[name]);
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.onChange();
      });
    }
  }

  async #askBeforeKey(step) {
    const [size, wanted] = [this.#wantedSize, this.#wantedSize + step];
    const [heading, text] = [`Have ${plural(wanted, "worker")}?`, `There are to be ${count(size)} now. One that is to go finishes its items first.`];
    if ((await confirm({ heading, text, no: "Leave it", yes: heading.slice(0, -1), danger: false })) !== null) this.#resize(wanted);
  }

  get #wantedSize() {
    return this.#wanted ?? this.#size;
  }

  // Each press is one more or fewer than the one before, also where they come faster than the answers.
  async #resize(wanted) {
    if (wanted < 1 || !this.live) return;
    this.#wanted = wanted;
    this.#asking += 1;
    const done = await resize(wanted);
    this.#asking -= 1;
    if (!this.#asking && (!done || this.#size === this.#wanted)) this.#wanted = null;
    if (done) say(`${plural(wanted, "worker")}.`);
  }

  #renderSize(store, live) {
    this.live = live;
    this.#size = store.concurrency;
    if (this.#size === this.#wanted && !this.#asking) this.#wanted = null;
    const size = this.#wantedSize;
    show(byId("size"), store.canResize);
    show(byId("show-stacks"), store.canLook && live);
    show(byId("strips"), store.samples.size > 0);
    setText(byId("size-count"), plural(size, "worker"));
    if (size <= 1 && document.activeElement === this.fewer) this.more.focus(); // else the focus would be lost
    this.fewer.disabled = !live || size <= 1;
    this.more.disabled = !live;
  }

  render(store, selected, live, now) {
    const { lanes } = store;
    show(byId("workers"), lanes.length > 0);
    if (!lanes.length) return;
    this.#renderSize(store, live);
    for (const [number, { element }] of this.#rows) {
      if (lanes.some((lane) => lane.number === number)) continue;
      this.#seen.unobserve(element);
      element.remove(); // its worker has gone for good
      this.#rows.delete(number);
    }
    const busy = lanes.filter((lane) => lane.doing === "busy").length;
    setText(byId("workers-count"), live ? `${count(busy)} of ${count(lanes.length)} busy` : `${count(lanes.length)} when last seen`);
    const isOpen = this.open.getAttribute("aria-expanded") === "true";
    byId("workers").toggleAttribute("data-closed", !isOpen);
    setText(this.open, isOpen ? "Hide workers" : "Show each worker");
    this.#dots(store, selected, live);
    if (!isOpen) return;
    if (live) this.#ask(store);
    setAttribute(this.list, "data-size", lanes.length >= DENSE ? "dense" : lanes.length >= COMPACT ? "compact" : "");
    show(byId("legend"), this.#shown === "work");
    const most = Math.max(1, ...[...store.samples.values()].flatMap((all) => all.map(([, , memory]) => memory)));
    setText(byId("strip-scale"), { work: "", cpu: "The full height is one CPU.", memory: `The full height is ${bytes(most)}.` }[this.#shown]);
    const colours = {
      running: colour("--processing-bar"),
      other: colour("--strong-line"),
      loading: colour("--retry-bar"),
      edge: colour("--card"),
      mark: colour("--failed-bar"),
      use: colour("--accent"),
    };
    this.drawn = { store, selected, now, live };
    for (const lane of lanes) this.#lane(store, lane, selected, now, live, colours, most);
    this.#axis();
  }

  #ask(store) {
    this.#history.ask(
      "now",
      () => askForHistory(this.#span),
      (told) => {
        store.history(told);
        this.#history.again(); // it goes on
        this.onChange();
      },
    );
  }

  // One for each worker, by what it is at: the panel at a glance. Of many workers, a sample by what they are at.
  #dots(store, selected, live) {
    let kinds = live ? store.lanes.map((lane) => kindOf(store, lane, selected)) : [];
    if (kinds.length > MOST_DOTS) {
      const all = kinds.sort();
      kinds = Array.from({ length: MOST_DOTS }, (_, at) => all[Math.floor((at * all.length) / MOST_DOTS)]);
    }
    const dots = byId("workers-dots");
    while (dots.children.length > kinds.length) dots.lastChild.remove();
    while (dots.children.length < kinds.length) dots.append(make("i"));
    kinds.forEach((kind, at) => setAttribute(dots.children[at], "data-kind", kind));
  }

  #lane(store, lane, selected, now, live, colours, most) {
    let row = this.#rows.get(lane.number);
    if (row === undefined) {
      const canvas = make("canvas", { role: "img" });
      const pid = make("span");
      const what = make("span", { class_: "what" });
      const use = make("span", { class_: "use" });
      const who = make("span", { class_: "who", children: [make("b", { children: [make("span", { class_: "word", text: "Worker " }), String(lane.number)] }), " ", pid] });
      const element = make("li", { class_: "lane", children: [who, canvas, what, use] });
      row = { element, canvas, pid, what, use };
      this.#rows.set(lane.number, row);
      this.list.append(element);
      this.#seen.observe(element);
      tipOver(canvas, (x) => this.#wordsAt(lane.number, x, canvas.clientWidth));
    }
    if (!row.element.hasAttribute("data-seen")) return;
    setText(row.pid, lane.pid === null ? "" : `pid ${lane.pid}`);
    setText(row.what, what(store, lane, selected, live, now, this.onChange));
    row.what.title = row.what.textContent;
    const samples = store.samples.get(lane.number) ?? [];
    const last = live ? samples.at(-1) : undefined;
    setText(row.use, useOf(last, "", ""));
    row.use.title = useOf(last, "CPU ", "memory ");
    const strip = prepared(row.canvas);
    const start = now - this.#span * 1000;
    const x = (at) => ((at - start) / (this.#span * 1000)) * strip.width;
    const stretches = stretchesOf(store, lane, now);
    const share = busyShare(stretches, start, now);
    const ends = store.marks.filter(([number, at]) => number === lane.number && at >= start);
    if (this.#shown === "work") drawWork(strip, stretches, start, x, (job) => isOwn(store, job, selected), colours);
    else drawUse(strip, samples, start, x, this.#shown === "cpu" ? ([, value]) => value : ([, , value]) => value / most, colours.use);
    for (const [, at] of ends) drawMark(strip, x(at), colours);
    const died = ends.length ? `; ${ends.map(([, at, why]) => `ended by ${why} at ${moment(at)}`).join("; ")}` : "";
    setAttribute(row.canvas, "aria-label", `busy for ${Math.round(100 * share)}% of the last ${this.#span / 60} min${died}`);
  }

  // What the strip says at that place.
  #wordsAt(number, x, width) {
    const { store, selected, now } = this.drawn;
    const start = now - this.#span * 1000;
    const [at, near] = [start + (x / width) * this.#span * 1000, (NEAR / width) * this.#span * 1000];
    const mark = store.marks.findLast(([lane, moment]) => lane === number && Math.abs(moment - at) < near);
    if (mark !== undefined) {
      const [, when, why, job, item] = mark;
      const name = item === null ? "" : `, while it ran ${this.#nameOf(job, item)}`;
      return `The worker ended at ${moment(when)}: ${why}${name}`;
    }
    if (this.#shown !== "work") {
      const sample = (store.samples.get(number) ?? []).findLast(([when]) => when <= at);
      return sample === undefined ? "" : `${moment(sample[0])}: ${useOf(sample, "CPU ", "memory ")}`;
    }
    const lane = store.lanes.find((one) => one.number === number);
    const stretch = lane && stretchesOf(store, lane, now).findLast(([from, to]) => from <= at && at <= to);
    if (stretch === undefined) return `${moment(at)}: idle`;
    const [from, to, kind, job, item] = stretch;
    const long = `${moment(from)}, ${duration((to - from) / 1000)}`;
    const id = job === selected ? "" : `${store.jobs.get(job)?.id ?? "a job that was cleared"}: `;
    if (kind === "loading") return `${id}setup: ${long}`;
    return `${id}${item === null ? "short items" : this.#nameOf(job, item)}: ${long}`;
  }

  #nameOf(number, item) {
    const job = this.drawn.store.jobs.get(number);
    return (job && this.drawn.live ? labelOf(job, item, this.onChange) : job?.labels.get(item)) ?? `item ${item}`;
  }

  #axis() {
    const axis = byId("axis");
    const labels = [1, 0.75, 0.5, 0.25, 0].map((part) => (part ? `−${Math.round(this.#span * part)} s` : "now"));
    if (axis.children.length !== labels.length) axis.replaceChildren(...labels.map((text) => make("span", { text })));
    labels.forEach((text, at) => setText(axis.children[at], text));
  }
}

// The canvas with as many pixels as the screen has; returns its context and its size.
function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}

function kindOf(store, lane, selected) {
  if (lane.doing !== "busy") return lane.doing;
  if (lane.phase === "loading") return "loading";
  return isOwn(store, lane.job, selected) ? "running" : "other";
}

// What a lane has been at, and is at. Of short items it is not known since when: they go on where the last ones ended.
function stretchesOf(store, lane, now) {
  const known = store.stretches.get(lane.number) ?? [];
  if (lane.doing !== "busy") return known;
  if (lane.item !== undefined) return [...known, [lane.since, now, "running", lane.job, lane.item]];
  const [, end, , job] = known.at(-1) ?? [];
  const kind = lane.phase === "loading" ? "loading" : "running";
  return job === lane.job && now - end < GAP ? [...known, [end, now, kind, job, null]] : known;
}

// What a process uses; its CPU is known from its second sample on.
function useOf(sample, cpu, memory) {
  if (sample === undefined) return "";
  const parts = sample[1] === null ? [] : [`${cpu}${Math.round(100 * sample[1])}%`];
  return [...parts, `${memory}${bytes(sample[2])}`].join(" · ");
}

// The job that is looked at, or a stage of it.
function isOwn(store, job, selected) {
  return job === selected || (selected !== undefined && store.jobs.get(job)?.state.stage === selected);
}

// Which share of the time a worker was busy.
function busyShare(stretches, start, now) {
  let busy = 0;
  for (const [from, to] of stretches) if (to >= start) busy += to - Math.max(from, start);
  return Math.min(1, busy / (now - start));
}

function drawWork({ context, width, height, ratio }, stretches, start, x, own, colours) {
  for (const [from, to, kind, job, item] of stretches) {
    if (to < start) continue;
    const [left, right] = [Math.max(0, x(from)), Math.min(width, Math.max(x(to), x(from) + 1))];
    context.fillStyle = kind === "running" && !own(job) ? colours.other : colours[kind];
    context.fillRect(left, 0, right - left, height);
    if (item !== null && right - left > 4 * ratio) {
      context.fillStyle = colours.edge; // items that had a stretch of their own are separated
      context.fillRect(left, 0, 1 * ratio, height);
    }
  }
}

function drawUse({ context, height }, samples, start, x, value, fill) {
  context.fillStyle = fill;
  samples.forEach((sample, at) => {
    const before = samples[at - 1];
    if (before === undefined || sample[0] < start || sample[0] - before[0] > GAP) return;
    const high = Math.min(1, value(sample)) * height;
    context.fillRect(x(before[0]), height - high, Math.max(1, x(sample[0]) - x(before[0])), high);
  });
}

// A cross, and a line through the whole strip, which stands out in a low one too.
function drawMark({ context, height, ratio }, x, colours) {
  const half = Math.min(4 * ratio, height / 2);
  context.fillStyle = colours.edge;
  context.fillRect(x - 2 * ratio, 0, 4 * ratio, height);
  context.strokeStyle = colours.mark;
  context.lineWidth = 2 * ratio;
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, height);
  context.moveTo(x - half, height / 2 - half);
  context.lineTo(x + half, height / 2 + half);
  context.moveTo(x - half, height / 2 + half);
  context.lineTo(x + half, height / 2 - half);
  context.stroke();
}

// What a worker is at, for its row and beside its stack. `then` is called once it can be said better.
export function what(store, lane, selected, live, now, then) {
  if (!live) return "unknown";
  if (lane.state !== "ready") return STATES[lane.state] ?? lane.state;
  if (lane.job === undefined) return "idle";
  const job = store.jobs.get(lane.job);
  const name = lane.job === selected ? "" : `${job?.id ?? "another job"}: `;
  if (lane.phase === "loading") return `${name}setup`;
  if (lane.item === undefined) return `${name}short items`;
  const label = (job && labelOf(job, lane.item, then)) ?? String(lane.item);
  const done = lane.fraction ? ` · ${Math.round(100 * lane.fraction)}%` : "";
  return `${name}${label} · ${duration(Math.max(0, now - lane.since) / 1000)}${done}`;
}
