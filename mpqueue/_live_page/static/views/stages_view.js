// The stages of a job as boxes, with the number of items that wait between them.

import { byId, fill, make, makeBar, setAttribute, setText, show } from "../dom.js";
import { count, endedOf, listed, rate } from "../format.js";

export class StagesView {
  #boxes = new Map(); // by the number of the stage

  // `onSelect` shows a stage, or the whole job.
  constructor(onSelect) {
    this.row = byId("stages");
    this.onSelect = onSelect;
  }

  render(job, jobs, live) {
    const head = jobs.find(({ number }) => number === (job?.state.stage ?? job?.number));
    const stages = jobs.filter(({ state }) => head !== undefined && state.stage === head.number);
    const shown = stages.length ? [head, ...stages] : [];
    show(this.row, shown.length > 0);
    const numbers = new Set(shown.map(({ number }) => number));
    for (const [number, { element }] of this.#boxes) {
      if (numbers.has(number)) continue;
      element.remove();
      this.#boxes.delete(number);
    }
    for (const one of shown) this.#fill(this.#box(one), one, head, job, live);
  }

  #box(job) {
    let box = this.#boxes.get(job.number);
    if (box !== undefined) return box;
    const parts = {
      queue: make("span", { class_: "queue" }),
      name: make("b"),
      bar: makeBar(),
      done: make("span", { class_: "quiet" }),
      running: make("span"),
      speed: make("span", { class_: "speed" }),
    };
    const now = make("span", { class_: "quiet", children: [parts.running, parts.speed] });
    const button = make("button", { type: "button", children: [parts.name, parts.bar, parts.done, now] });
    button.addEventListener("click", () => this.onSelect(job.number));
    box = { element: make("li", { children: [parts.queue, button] }), button, ...parts };
    this.#boxes.set(job.number, box);
    this.row.append(box.element);
    return box;
  }

  #fill(box, { id, number, state }, head, job, live) {
    const isHead = number === head.number;
    const { counts, completed, failed } = state;
    const waiting = counts.pending + counts.retry;
    show(box.queue, !isHead);
    setAttribute(box.queue, "data-waits", String(waiting > 0));
    setText(box.queue, `${count(waiting)} waiting`);
    setText(box.name, isHead ? "All stages" : id.slice(head.id.length + 1));
    setAttribute(box.button, "aria-current", String(number === job.number));
    fill(box.bar, state, live);
    setText(box.done, isHead ? endedOf(state, "input") : `${count(completed)} done${failed ? `, ${count(failed)} failed` : ""}`);
    setText(box.running, isHead || !live || !counts.processing ? "" : `${count(counts.processing)} running`);
    const speed = live && !state.finishedAt && state.rate !== undefined && (isHead || listed(state) > completed + failed) ? `${rate(state.rate)}/s` : "";
    setText(box.speed, speed && box.running.textContent ? ` · ${speed}` : speed);
  }
}
