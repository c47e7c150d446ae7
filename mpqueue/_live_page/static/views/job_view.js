// The job that is looked at: its bar, its figures, how fast it went, and the buttons.

import { act, askForThroughput, Question } from "../asking.js";
import { confirm } from "../confirm.js";
import { byId, fill, place, say, setAttribute, setText, show } from "../dom.js";
import { clock, count, duration, endedOf, jobStatusName, percent, plural, progress, rate, shade } from "../format.js";
import { waits } from "./job_list.js";

const PAUSE = 2000; // milliseconds between two questions for the throughput

export class JobView {
  #job = null;
  #live = false;
  #throughput = new Question(() => PAUSE);

  constructor(keys) {
    this.buttons = Object.fromEntries(["pause", "resume", "retry", "cancel"].map((name) => [name, byId(name)]));
    this.buttons.pause.addEventListener("click", () => this.#act("pause", "resume"));
    this.buttons.resume.addEventListener("click", () => this.#act("resume", "pause"));
    this.buttons.retry.addEventListener("click", () => this.#act("retry-failed", "pause"));
    this.buttons.cancel.addEventListener("click", () => this.#askBeforeCancel());
    keys.on("p", () => this.#askBeforeKey());
  }

  async #askBeforeKey() {
    const button = [this.buttons.pause, this.buttons.resume].find((one) => one.checkVisibility() && !one.disabled);
    if (button === undefined) return;
    const verb = button.textContent;
    const text = verb === "Pause" ? "Items that run now may finish; no others begin." : "Its items go on.";
    const agreed = await confirm({ heading: `${verb} “${this.#job.id}”?`, text, no: "Leave it", yes: `${verb} the job`, danger: false });
    if (agreed !== null && button.checkVisibility()) button.click();
  }

  // What the button does makes it vanish, maybe before the answer comes: the focus goes to the one in its place.
  async #act(action, next) {
    this.focusNext = next;
    if (!(await act(this.#job, action))) this.focusNext = undefined;
  }

  async #askBeforeCancel() {
    const job = this.#job;
    const { id, state } = job;
    const left = state.total - state.completed - state.failed;
    const agreed = await confirm({
      heading: `Cancel “${id}”?`,
      text: `${plural(left, "item")} will not have run. Results so far are kept. A cancelled job can't be resumed.`,
      check: "Also end the items that run now; else they may finish",
      no: "Keep it running",
      yes: "Cancel the job",
    });
    if (agreed === null) return;
    await act(job, "cancel", agreed);
    byId("job-heading").setAttribute("tabindex", "-1");
    byId("job-heading").focus();
  }

  render(job, live, now, canAct) {
    if (job !== this.#job) {
      this.#throughput.drop();
      show(byId("throughput"), false);
    }
    this.#job = job;
    this.#live = live;
    show(byId("job"), job !== null);
    if (job === null) return;
    const { state } = job;
    setText(byId("job-heading"), job.id);
    setText(byId("job-status"), jobStatusName(state, live));
    setAttribute(byId("job-status"), "data-state", shade(state.status, live));
    const why = state.stoppedWhy ? `It was stopped: ${state.stoppedWhy}.` : waits(state, live);
    show(byId("job-note"), why !== "");
    setText(byId("job-note"), why);
    const bar = byId("bar");
    fill(bar, state, live);
    const done = progress(state);
    if (done) setAttribute(bar, "aria-valuenow", String(percent(state.done, state.total)));
    else bar.removeAttribute("aria-valuenow");
    const parts = `${count(state.completed)} completed, ${count(state.failed)} failed, of ${count(state.total)}`;
    setAttribute(bar, "aria-valuetext", done ? `${done}: ${parts}` : `${parts} so far`);
    this.#figures(state, done, now, live);
    this.#buttons(state, live, canAct);
    const report = byId("report");
    show(report, Boolean(state.report) && live);
    setAttribute(report, "href", `jobs/${job.number}/report`);
    if (live && state.startedAt) this.#askForThroughput(job);
  }

  // Only what there is something to say about.
  #figures(state, done, now, live) {
    const figure = (name, text) => {
      show(byId(`f-${name}`).parentElement, text !== "");
      setText(byId(`f-${name}`), text);
    };
    const goesOn = state.finishedAt || !state.recorded; // a program that ended in the middle has left no end
    const elapsed = state.startedAt && goesOn ? (state.finishedAt ?? Math.max(now, state.startedAt)) - state.startedAt : null;
    const perSecond = live || state.finishedAt ? state.rate : undefined; // once a job has ended, that of its last run
    figure("done", `${endedOf(state)}${state.finishedAt || !done ? "" : ` · ${done}`}`);
    figure("rate", perSecond === undefined ? "" : rate(perSecond));
    figure("eta", !live || state.eta === undefined ? "" : clock(state.eta));
    figure("elapsed", elapsed === null ? "" : state.finishedAt ? duration(elapsed / 1000) : clock(elapsed));
    figure("retries", state.retries ? count(state.retries) : "");
    setText(byId("f-elapsed").previousElementSibling, state.finishedAt ? "Took" : "Elapsed");
  }

  // -- how fast it went ---------------------------------------------------------------------------------------

  #askForThroughput({ number, state }) {
    this.#throughput.ask(
      `${state.version} ${state.status}`,
      () => askForThroughput(number),
      (drawn) => {
        show(byId("throughput"), drawn !== null);
        place(byId("throughput"), drawn ?? "");
      },
    );
  }

  // -- buttons ------------------------------------------------------------------------------------------------

  #buttons(state, live, canAct) {
    const active = (state.status === "running" || state.status === "paused") && !state.cancelled;
    const visible = {
      pause: state.status === "running" && !state.cancelled,
      resume: state.status === "paused" && !state.cancelled,
      retry: state.status === "completed_with_errors",
      cancel: active || (state.status === "pending" && !state.recorded),
    };
    for (const [name, button] of Object.entries(this.buttons)) {
      const hadFocus = document.activeElement === button;
      show(button, visible[name] && canAct);
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
