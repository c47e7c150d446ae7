// What each worker is at, and has been at: a strip of time for each, the last minutes.

import { byId, make, setAttribute, setText, show } from "./dom.js";
import { asText, count, duration } from "./format.js";

const STATES = { starting: "is starting", dying: "is being ended", down: "is down; starts again" };

export class WorkersView {
  #rows = new Map(); // by lane
  #span = 60;

  constructor() {
    this.list = byId("lanes");
    const buttons = document.querySelectorAll("[data-span]");
    for (const button of buttons) {
      button.addEventListener("click", () => {
        this.#span = Number(button.dataset.span);
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.dirty = true;
      });
    }
  }

  render(store, selected, now) {
    const { lanes } = store;
    show(byId("workers"), lanes.length > 0);
    if (!lanes.length) return;
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
        context.fillStyle = colours.edge; // items that had a stretch of their own are told apart
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

function what(store, lane, selected, now) {
  if (lane.state !== "ready") return STATES[lane.state] ?? lane.state;
  if (lane.job === undefined) return "idle";
  const job = store.jobByNumber(lane.job);
  const name = lane.job === selected ? "" : `${job?.id ?? "another job"}: `;
  if (lane.phase === "loading") return `${name}setup`;
  if (lane.item === undefined) return `${name}${lane.items > 1 ? "short items" : "between two items"}`;
  const item = job?.items[lane.item];
  const label = item === undefined ? String(lane.item) : asText(item.id);
  const done = lane.fraction ? ` · ${Math.round(100 * lane.fraction)} %` : "";
  return `${name}${label} · ${duration(Math.max(0, now - lane.since) / 1000)}${done}`;
}
