// The list of jobs, on a phone a choice: those at work first, then by when something happened to them last. Stages are
// with their job. Its buttons stay the same elements, so that the focus stays where it is.

import { byId, fill, make, makeBar, setAttribute, setText, show } from "../dom.js";
import { clock, count, duration, endedOf, jobStatusName, plural, progress, rate, shade } from "../format.js";

const MOST = 100; // jobs that are listed at a time, but for those that run
const SOME = 5; // jobs from which on there is a search
const KINDS = { all: () => true, active: isActive, failed: ({ state }) => state.failed > 0, ended: ({ state }) => state.finishedAt !== undefined };

export function isActive({ state }) {
  return state.status === "running" || state.status === "paused";
}

export class JobList {
  #entries = new Map(); // by job number
  #all = [];
  #more = 0; // how many more jobs than `MOST` are listed, since the user asked for them

  constructor(onSelect, onChange) {
    this.list = byId("jobs");
    this.choice = byId("job-choice");
    this.choice.addEventListener("change", () => onSelect(Number(this.choice.value)));
    this.onSelect = onSelect;
    this.search = byId("job-search");
    this.kind = byId("job-kind");
    this.search.addEventListener("input", onChange);
    this.kind.addEventListener("change", onChange);
    byId("more-jobs").addEventListener("click", () => {
      this.#more += MOST;
      onChange();
    });
  }

  render(all, selected, live) {
    this.#all = inOrder(all);
    const jobs = this.#all;
    show(byId("job-tools"), jobs.length >= SOME);
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = jobs.length >= SOME ? jobs.filter((job) => KINDS[this.kind.value](job) && words.every((word) => job.id.toLowerCase().includes(word))) : this.#all;
    const shown = fits.filter((job, at) => at < MOST + this.#more || isActive(job) || job.number === selected);
    const numbers = new Set(shown.map((job) => job.number));
    for (const [number, entry] of this.#entries) {
      if (!numbers.has(number)) {
        entry.row.remove();
        entry.option.remove();
        this.#entries.delete(number);
      }
    }
    const focused = document.activeElement;
    shown.forEach((job, at) => {
      const entry = this.#entry(job);
      if (this.list.children[at] !== entry.row) {
        this.list.insertBefore(entry.row, this.list.children[at] ?? null);
        this.choice.insertBefore(entry.option, this.choice.children[at] ?? null);
      }
      this.#fill(entry, job, job.number === selected, live);
    });
    if (focused !== document.activeElement && this.list.contains(focused)) focused.focus(); // its row was moved
    const value = numbers.has(selected) ? String(selected) : ""; // none is chosen
    if (this.choice.value !== value) this.choice.value = value;
    show(this.choice, jobs.length > 1);
    setText(byId("jobs-count"), jobs.length ? count(jobs.length) : "");
    show(byId("no-such-jobs"), jobs.length > 0 && fits.length === 0);
    show(byId("more-jobs"), shown.length < fits.length);
    setText(byId("more-jobs"), `Show more: ${count(fits.length - shown.length)} are left`);
    setText(byId("totals"), jobs.length > 1 ? totals(this.#all, live) : "");
  }

  #entry(job) {
    let entry = this.#entries.get(job.number);
    if (entry === undefined) {
      const parts = {
        name: make("b", { text: job.id, title: job.id }),
        chip: make("span", { class_: "chip" }),
        bar: makeBar(),
        left: make("span"),
        right: make("span"),
        wait: make("span", { class_: "wait" }),
      };
      const button = make("button", {
        type: "button",
        children: [
          make("span", { class_: "name", children: [parts.name, parts.chip] }),
          parts.bar,
          make("span", { class_: "line", children: [parts.left, parts.right] }),
          parts.wait,
        ],
      });
      button.addEventListener("click", () => this.onSelect(job.number));
      entry = { row: make("li", { children: [button] }), option: make("option", { value: job.number }), button, ...parts };
      this.#entries.set(job.number, entry);
    }
    return entry;
  }

  #fill(entry, { id, state }, selected, live) {
    if (entry.state === state && entry.selected === selected && entry.live === live) return;
    Object.assign(entry, { state, selected, live });
    setAttribute(entry.button, "aria-current", String(selected));
    setAttribute(entry.chip, "data-state", shade(state.status, live));
    setText(entry.chip, jobStatusName(state, live));
    setText(entry.option, `${id} · ${jobStatusName(state, live)}`);
    fill(entry.bar, state, live);
    setText(entry.left, `${endedOf(state)}${state.failed ? ` · ${count(state.failed)} failed` : ""}`);
    setText(entry.right, news(state, live));
    setText(entry.wait, waits(state, live));
    show(entry.wait, entry.wait.textContent !== "");
  }
}

// Running ones first, then paused ones; of equals the one to which something happened last. The one that runs is not
// moved by each of its items: of those at work, the one that started last is first.
export function inOrder(jobs) {
  const rank = ({ state }) => ({ running: state.before === undefined ? 0 : 1, paused: 2, pending: 3 })[state.status] ?? 4;
  const moment = ({ state }) => (state.finishedAt ?? state.startedAt) || 0;
  return jobs.filter(({ state }) => state.stage === undefined).sort((a, b) => rank(a) - rank(b) || moment(b) - moment(a) || b.number - a.number);
}

function totals(jobs, live) {
  const active = jobs.filter(isActive);
  const interrupted = jobs.filter(({ state }) => state.status === "pending" && state.recorded && state.startedAt).length;
  const pending = jobs.filter(({ state }) => state.status === "pending").length - interrupted;
  const over = jobs.length - active.length - pending - interrupted;
  const sum = (name) => jobs.reduce((all, { state }) => all + state[name], 0);
  const parts = [];
  if (active.length) parts.push(`${count(active.length)} ${live ? "active" : "unknown"}`);
  if (pending) parts.push(`${count(pending)} not started`);
  if (interrupted) parts.push(`${count(interrupted)} interrupted`);
  if (over) parts.push(`${count(over)} ended`);
  const failed = sum("failed");
  return `${parts.join(", ")}. ${count(sum("completed") + failed)} of ${plural(sum("total"), "item")} done${failed ? `, ${count(failed)} failed` : ""}.`;
}

// Why a job that runs has no worker yet.
export function waits(state, live) {
  if (live && state.starting && !state.done) return `Starting ${plural(state.starting, "worker")}`;
  if (!live || state.before === undefined) return "";
  return `Waiting for workers: ${plural(state.before, "job")} before it`;
}

function news(state, live) {
  if (state.finishedAt) return state.startedAt ? duration((state.finishedAt - state.startedAt) / 1000) : "";
  if (live && state.rate !== undefined) return state.eta === undefined ? `${rate(state.rate)}/s` : `${clock(state.eta)} left`;
  return state.startedAt ? progress(state) : "";
}
