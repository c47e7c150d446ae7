// The list of jobs, newest first. Its buttons stay the same elements, so that the focus stays where it is.

import { byId, fill, make, setAttribute, setText, show } from "./dom.js";
import { clock, count, jobStatusName, percent, rate } from "./format.js";

const MOST = 100; // jobs that are listed although they don't run

const isActive = ({ state }) => state.status === "running" || state.status === "paused";

export class JobList {
  #entries = new Map(); // by job number

  constructor(onSelect) {
    this.list = byId("jobs");
    this.onSelect = onSelect;
  }

  render(jobs, selected) {
    const all = [...jobs].reverse();
    const newest = all.filter((job, at) => at < MOST || isActive(job) || job.number === selected);
    const numbers = new Set(newest.map((job) => job.number));
    for (const [number, entry] of this.#entries) {
      if (!numbers.has(number)) {
        entry.row.remove();
        this.#entries.delete(number);
      }
    }
    newest.forEach((job, at) => {
      const entry = this.#entry(job);
      if (this.list.children[at] !== entry.row) this.list.insertBefore(entry.row, this.list.children[at] ?? null);
      this.#fill(entry, job, job.number === selected);
    });
    setText(byId("jobs-count"), all.length ? count(all.length) : "");
    show(byId("no-jobs"), all.length === 0);
    show(byId("older-jobs"), newest.length < all.length);
    setText(byId("older-jobs"), `and ${count(all.length - newest.length)} older ones that don't run`);
  }

  #entry(job) {
    let entry = this.#entries.get(job.number);
    if (entry === undefined) {
      const parts = {
        name: make("b", { text: job.id, title: job.id }),
        chip: make("span", { class_: "chip" }),
        bar: make("span", { class_: "bar", children: ["completed", "failed", "processing"].map((name) => make("span", { class_: name })) }),
        left: make("span"),
        right: make("span"),
      };
      const button = make("button", {
        type: "button",
        children: [
          make("span", { class_: "name", children: [parts.name, parts.chip] }),
          parts.bar,
          make("span", { class_: "line", children: [parts.left, parts.right] }),
        ],
      });
      button.addEventListener("click", () => this.onSelect(job.number));
      entry = { row: make("li", { children: [button] }), button, ...parts };
      this.#entries.set(job.number, entry);
    }
    return entry;
  }

  #fill(entry, { state }, selected) {
    if (entry.state === state && entry.selected === selected) return;
    Object.assign(entry, { state, selected });
    setAttribute(entry.button, "aria-current", String(selected));
    setAttribute(entry.chip, "data-state", state.status);
    setText(entry.chip, jobStatusName(state.status));
    fill(entry.bar, state);
    const ended = state.completed + state.failed;
    setText(entry.left, `${count(ended)} of ${count(state.total)}`);
    setText(entry.right, this.#news(state));
  }

  #news(state) {
    if (state.finishedAt) return clock(state.finishedAt - state.startedAt);
    if (state.eta !== undefined) return `${rate(state.rate)}/s · ${clock(state.eta)} left`;
    return state.startedAt ? `${percent(state.done, state.total)} %` : "";
  }
}
