// The job that is looked at: its bar, its figures, and the buttons.

import { byId, fill, say, setAttribute, setText, show } from "./dom.js";
import { clock, count, jobStatusName, percent, plural, rate } from "./format.js";
import { act } from "./stream.js";

export class JobView {
  #job = null;

  constructor(onError) {
    this.onError = onError;
    this.buttons = Object.fromEntries(["pause", "resume", "retry", "cancel"].map((name) => [name, byId(name)]));
    this.buttons.pause.addEventListener("click", () => this.#act("pause", "resume"));
    this.buttons.resume.addEventListener("click", () => this.#act("resume", "pause"));
    this.buttons.retry.addEventListener("click", () => this.#act("retry-failed", "pause"));
    this.buttons.cancel.addEventListener("click", () => this.#askBeforeCancel());
    byId("confirm").addEventListener("close", () => this.#answered());
  }

  // What the button does makes it vanish, maybe before the answer comes: the focus goes to the one in its place.
  async #act(action, next, body) {
    const job = this.#job;
    this.focusNext = next;
    const error = await act(job.number, action, body);
    if (error !== null) this.focusNext = undefined;
    this.onError(error === null ? "" : `${job.id}: ${error}`);
  }

  #askBeforeCancel() {
    const { id, state } = this.#job;
    const left = state.total - state.completed - state.failed;
    this.asked = this.#job;
    setText(byId("confirm-heading"), `Cancel “${id}”?`);
    setText(byId("confirm-text"), `${plural(left, "item")} will not have run. Results so far are kept. A cancelled job can't be resumed.`);
    byId("confirm-kill").checked = false;
    const dialog = byId("confirm");
    dialog.returnValue = "no";
    dialog.showModal();
  }

  #answered() {
    const job = this.asked;
    if (byId("confirm").returnValue !== "yes" || job === null) return;
    this.asked = null;
    act(job.number, "cancel", { kill: byId("confirm-kill").checked }).then((error) => {
      this.onError(error === null ? "" : `${job.id}: ${error}`);
      byId("job-heading").setAttribute("tabindex", "-1");
      byId("job-heading").focus();
    });
  }

  render(job, live, now) {
    this.#job = job;
    show(byId("job"), job !== null);
    if (job === null) return;
    const { state } = job;
    setText(byId("job-heading"), job.id);
    setText(byId("job-status"), jobStatusName(state.status) + (state.cancelled && !state.finishedAt ? ", being cancelled" : ""));
    setAttribute(byId("job-status"), "data-state", state.status);
    const bar = byId("bar");
    fill(bar, state);
    const done = percent(state.done, state.total);
    setAttribute(bar, "aria-valuenow", String(done));
    setAttribute(bar, "aria-valuetext", `${done} %: ${count(state.completed)} completed, ${count(state.failed)} failed, of ${count(state.total)}`);
    this.#figures(state, done, now);
    this.#buttons(state, live);
  }

  #figures(state, done, now) {
    const figure = (name, text, small = "") => {
      const element = byId(`f-${name}`);
      if (element.dataset.shown === text + small) return;
      element.dataset.shown = text + small;
      element.replaceChildren(text);
      if (small) element.append(" ", Object.assign(document.createElement("small"), { textContent: small }));
    };
    const ended = state.completed + state.failed;
    const elapsed = state.startedAt ? (state.finishedAt ?? Math.max(now, state.startedAt)) - state.startedAt : null;
    const overall = state.finishedAt && elapsed > 0 && ended > 0 ? (1000 * ended) / elapsed : undefined;
    const perSecond = state.rate ?? overall;
    figure("done", `${done} %`, `${count(ended)} of ${count(state.total)}`);
    figure("rate", perSecond === undefined ? "–" : rate(perSecond), perSecond === undefined ? "" : "items/s");
    figure("eta", state.eta === undefined ? "–" : clock(state.eta));
    figure("elapsed", elapsed === null ? "–" : clock(elapsed));
    figure("retries", count(state.retries));
    figure("failed", count(state.failed));
    byId("f-failed").classList.toggle("bad", state.failed > 0);
  }

  #buttons(state, live) {
    const active = (state.status === "running" || state.status === "paused") && !state.cancelled;
    const visible = {
      pause: state.status === "running" && !state.cancelled,
      resume: state.status === "paused" && !state.cancelled,
      retry: state.status === "completed_with_errors",
      cancel: active || state.status === "pending",
    };
    for (const [name, button] of Object.entries(this.buttons)) {
      const hadFocus = document.activeElement === button;
      show(button, visible[name]);
      button.disabled = !live;
      if (hadFocus && !visible[name]) this.focusNext ??= name === "retry" || name === "resume" ? "pause" : "cancel";
    }
    setText(this.buttons.retry, `Retry ${plural(state.failed, "failed item")}`);
    const next = this.focusNext && this.buttons[this.focusNext];
    if (next && !next.hidden && !next.disabled) {
      const focused = document.activeElement;
      if (focused === null || focused === document.body || focused.hidden) next.focus();
      this.focusNext = undefined;
    }
  }
}

// Announce a job's new status to screen readers.
export function announce(before, state) {
  if (!before || before.status === state.status) return;
  const result = `${count(state.completed)} completed, ${count(state.failed)} failed`;
  const text = {
    running: before.status === "paused" ? "goes on" : "has started",
    paused: "is paused",
    completed: `is complete: ${result}`,
    completed_with_errors: `has ended: ${result}`,
    cancelled: `is cancelled: ${result}`,
  }[state.status];
  if (text) say(`Job ${state.jobId} ${text}.`);
}
