// What each worker is at, and has been at: a strip of time for each, the last minutes.

import { byId, make, say, setAttribute, setText, show } from "./dom.js";
import { count, duration, plural } from "./format.js";
import { nameOf } from "./item_list.js";
import { resize } from "./stream.js";

const STATES = { starting: "is starting", dying: "is being ended", down: "is down; starts again" };

export class WorkersView {
  #rows = new Map(); // by lane
  #span = 60;
  #size = 0; // workers that there are to be
  #wanted = null; // the same, once a button was pressed, until the program says so
  #asking = 0;

  constructor(onError) {
    this.onError = onError;
    this.list = byId("lanes");
    this.fewer = byId("fewer");
    this.more = byId("more");
    this.fewer.addEventListener("click", () => this.#resize(-1));
    this.more.addEventListener("click", () => this.#resize(1));
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof Element && event.target.closest("input, textarea, dialog[open]");
      const step = { "+": 1, "-": -1 }[event.key];
      if (step === undefined || typing || event.ctrlKey || event.metaKey || event.altKey) return; // Ctrl: the zoom
      if ((step > 0 ? this.more : this.fewer).checkVisibility()) {
        event.preventDefault();
        this.#resize(step);
      }
    });
    const buttons = document.querySelectorAll("[data-span]");
    for (const button of buttons) {
      button.addEventListener("click", () => {
        this.#span = Number(button.dataset.span);
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.dirty = true;
      });
    }
  }

  // Each press is one more or fewer than the one before, also where they come faster than the answers.
  async #resize(step) {
    const wanted = (this.#wanted ?? this.#size) + step;
    if (wanted < 1 || !this.live) return;
    this.#wanted = wanted;
    this.#asking += 1;
    const error = await resize(wanted);
    this.#asking -= 1;
    if (error !== null || this.#size === wanted) this.#wanted = null;
    this.onError(error === null ? "" : `The number of workers stays: ${error}`);
    if (error === null) say(`${plural(wanted, "worker")}.`);
  }

  #renderSize(store, live) {
    this.live = live;
    this.#size = store.concurrency;
    if (this.#size === this.#wanted && !this.#asking) this.#wanted = null;
    const size = this.#wanted ?? this.#size;
    show(byId("size"), store.canResize);
    show(byId("show-stacks"), store.canResize && live);
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
      element.remove(); // its worker has gone for good
      this.#rows.delete(number);
    }
    const busy = lanes.filter((lane) => lane.job !== undefined).length;
    setText(byId("workers-count"), `${count(busy)} of ${count(lanes.length)} busy`);
    const styles = getComputedStyle(document.documentElement);
    const colour = (name) => styles.getPropertyValue(name);
    const colours = {
      running: colour("--processing-bar"),
      other: colour("--strong-line"),
      loading: colour("--retry-bar"),
      starting: colour("--line"),
      edge: colour("--card"),
    };
    for (const lane of lanes) this.#lane(store, lane, selected, now, colours);
    this.#axis();
  }

  #lane(store, lane, selected, now, colours) {
    let row = this.#rows.get(lane.number);
    if (row === undefined) {
      const canvas = make("canvas", { role: "img" });
      const pid = make("span");
      const what = make("span", { class_: "what" });
      const who = make("span", { class_: "who", children: [make("b", { text: `Worker ${lane.number}` }), " ", pid] });
      const element = make("li", { class_: "lane", children: [who, canvas, what] });
      row = { element, canvas, pid, what };
      this.#rows.set(lane.number, row);
      this.list.append(element);
    }
    setText(row.pid, lane.pid === null ? "" : `pid ${lane.pid}`);
    setText(row.what, what(store, lane, selected, now));
    row.what.title = row.what.textContent;
    const share = this.#draw(row.canvas, store.stretches.get(lane.number) ?? [], selected, now, colours);
    setAttribute(row.canvas, "aria-label", `busy for ${Math.round(100 * share)} % of the last ${this.#span / 60} min`);
  }

  // Returns which share of the time it was busy.
  #draw(canvas, stretches, selected, now, colours) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const start = now - this.#span * 1000;
    const x = (moment) => ((moment - start) / (this.#span * 1000)) * width;
    let busy = 0;
    for (const [from, to, kind, job, item] of stretches) {
      if (to < start) continue;
      const [left, right] = [Math.max(0, x(from)), Math.min(width, Math.max(x(to), x(from) + 1))];
      context.fillStyle = kind === "running" && job !== selected ? colours.other : colours[kind];
      context.fillRect(left, 0, right - left, height);
      if (item !== null && right - left > 4 * ratio) {
        context.fillStyle = colours.edge; // items that had a stretch of their own are separated
        context.fillRect(left, 0, 1 * ratio, height);
      }
      if (kind !== "starting") busy += to - Math.max(from, start);
    }
    return Math.min(1, busy / (this.#span * 1000));
  }

  #axis() {
    const axis = byId("axis");
    const labels = [1, 0.75, 0.5, 0.25, 0].map((part) => (part ? `−${Math.round(this.#span * part)} s` : "now"));
    if (axis.children.length !== labels.length) axis.replaceChildren(...labels.map((text) => make("span", { text })));
    labels.forEach((text, at) => setText(axis.children[at], text));
  }
}

// What a worker is at, for its row and beside its stack.
export function what(store, lane, selected, now) {
  if (lane.state !== "ready") return STATES[lane.state] ?? lane.state;
  if (lane.job === undefined) return "idle";
  const job = store.jobByNumber(lane.job);
  const name = lane.job === selected ? "" : `${job?.id ?? "another job"}: `;
  if (lane.phase === "loading") return `${name}setup`;
  if (lane.item === undefined) return `${name}${lane.items > 1 ? "short items" : "between two items"}`;
  const item = job?.items[lane.item];
  const label = item === undefined ? String(lane.item) : nameOf(item);
  const done = lane.fraction ? ` · ${Math.round(100 * lane.fraction)} %` : "";
  return `${name}${label} · ${duration(Math.max(0, now - lane.since) / 1000)}${done}`;
}
