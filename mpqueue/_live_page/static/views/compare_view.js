// Two runs side by side: their figures, how fast they went, and the items that came out differently.

import { askForComparison, askForLike, askForThroughput, Question } from "../asking.js";
import { byId, make, place, setText, show } from "../dom.js";
import { bytes, count, duration, jobStatusName, moment, plural, statusName } from "../format.js";

const NO_ANSWER = "They could not be compared: a job is not there any more, or the program can't be reached.";
const seconds = (value) => (value === undefined || value === null ? "–" : duration(value));
const ROWS = [
  ["Status", ({ status }) => jobStatusName({ status })],
  ["Started", ({ startedAt }) => (startedAt === undefined ? "–" : moment(startedAt))],
  ["Took", ({ duration: value }) => seconds(value), "duration"],
  ["Items", ({ total }) => count(total)],
  ["Completed", ({ completed }) => count(completed), "completed"],
  ["Failed", ({ failed }) => count(failed), "failed"],
  ["Retries", ({ retries }) => count(retries), "retries"],
  ["Median item", ({ median }) => seconds(median), "median"],
  ["90% of the items took at most", ({ p90 }) => seconds(p90), "p90"],
  ["Slowest item", ({ slowest }) => seconds(slowest), "slowest"],
  ["In the handler, all items", ({ itemSeconds }) => seconds(itemSeconds), "itemSeconds"],
  ["CPU time", ({ cpu }) => (cpu ? duration(cpu) : "–"), "cpu"],
  ["Peak memory of a worker", ({ peakMemory }) => (peakMemory ? bytes(peakMemory) : "–"), "peakMemory"],
];

export class CompareView {
  #job = null;
  #jobs = [];
  #asked = 0;
  #like = null; // the question for jobs like it
  #any = false; // if there are some

  // `onOpen` shows an item, with its index and id, of a job.
  constructor(onOpen, onChange) {
    this.onOpen = onOpen;
    this.#like = new Question(() => 0, onChange);
    this.dialog = byId("compare");
    this.other = byId("compare-with");
    byId("compare-open").addEventListener("click", () => this.#open());
    byId("compare-close").addEventListener("click", () => this.dialog.close());
    this.other.addEventListener("change", () => this.#ask());
  }

  render(job, jobs, live) {
    if (job !== this.#job) {
      this.#like.drop();
      this.#any = false;
    }
    this.#job = job;
    this.#jobs = jobs;
    const own = job?.state.stage ?? job?.number; // the job whose stages are not compared with it
    const isOther = ({ number, state }) => number !== own && state.stage !== own && state.startedAt;
    const others = job?.state.startedAt ? jobs.filter(isOther) : [];
    // Asked for again once another job has started; where there is no answer, the dialog says so.
    if (live && others.length) this.#like.ask(others.length, async () => (await askForLike(job.number)) ?? null, (like) => (this.#any = like === null || like.length > 0));
    show(byId("compare-open"), live && others.length > 0 && this.#any);
  }

  // Only jobs with the same handler or the same ids are of use. The one to begin with: the last one before it with as
  // many items, else the last one before it.
  async #open() {
    const job = this.#job;
    setText(byId("compare-heading"), `${job.id}, compared`);
    setText(byId("compare-note"), "Looking for jobs like it…");
    byId("compare-body").replaceChildren();
    this.other.replaceChildren();
    this.dialog.showModal();
    const like = await askForLike(job.number);
    if (job !== this.#job || !this.dialog.open) return;
    const others = this.#jobs.filter((one) => like?.includes(one.number)).sort((a, b) => b.state.startedAt - a.state.startedAt);
    const before = others.filter((one) => one.state.startedAt <= job.state.startedAt);
    const first = before.find((one) => one.state.total === job.state.total) ?? before[0] ?? others[0];
    this.other.replaceChildren(...others.map((one) => make("option", { value: one.number, text: `${one.id} (${moment(one.state.startedAt)})` })));
    show(this.other.parentElement, first !== undefined);
    if (first === undefined) {
      setText(byId("compare-note"), like === undefined ? NO_ANSWER : "No other job has the same handler, or items with the same ids.");
      return;
    }
    this.other.value = String(first.number);
    this.#ask();
  }

  async #ask() {
    const asked = (this.#asked += 1);
    const [job, other] = [this.#job.number, Number(this.other.value)];
    setText(byId("compare-note"), "Comparing…");
    const [told, ...speeds] = await Promise.all([askForComparison(other, job), askForThroughput(other), askForThroughput(job)]);
    if (asked !== this.#asked) return;
    if (told === undefined) {
      setText(byId("compare-note"), NO_ANSWER);
      return;
    }
    const { runs, matched, only, changed, slower, faster, items } = told;
    const alone = only.map((n, at) => (n ? ` ${count(n)} only in ${runs[at].jobId}.` : "")).join("");
    setText(byId("compare-note"), `${plural(matched, "item")} in both: ${differences(changed, slower, faster)}.${alone}`);
    byId("compare-body").replaceChildren(this.#figures(runs, speeds), ...(items.length ? [this.#items(runs, items)] : []));
  }

  #figures(runs, speeds) {
    const cell = (text) => make("td", { text });
    const rows = ROWS.map(([name, show, key]) => make("tr", { children: [make("th", { scope: "row", text: name }), ...runs.map((run) => cell(show(run))), cell(key ? change(runs[0][key], runs[1][key]) : "")] }));
    if (speeds.some(Boolean)) {
      const charts = speeds.map(() => cell(""));
      charts.forEach((one, at) => place(one, speeds[at] ?? ""));
      rows.push(make("tr", { children: [make("th", { scope: "row", text: "Items per second" }), ...charts, cell("")] }));
    }
    return table(["", ...runs.map((run) => run.jobId), "Change"], rows);
  }

  #items(runs, items) {
    const rows = items.map(({ id, label, runs: outcomes }) => make("tr", {
      children: [
        make("th", { scope: "row", text: label }),
        ...outcomes.map((one, at) => make("td", { children: [this.#link(runs[at], one, id, label), ...(one.error ? [make("p", { class_: "quiet", text: one.error })] : [])] })),
        make("td", { text: change(outcomes[0].elapsed, outcomes[1].elapsed) }),
      ],
    }));
    return table(["Item", ...runs.map((run) => run.jobId), "Change"], rows);
  }

  #link(run, { index, status, elapsed }, id, label) {
    const text = `${statusName(status)}${elapsed === undefined ? "" : `, ${duration(elapsed)}`}`;
    const button = make("button", { type: "button", class_: "plain", text, "aria-label": `${label} in ${run.jobId}: ${text}` });
    button.addEventListener("click", () => {
      this.dialog.close();
      this.onOpen(run.number, { index, id });
    });
    return button;
  }
}

// What is different in the items of both.
function differences(changed, slower, faster) {
  const parts = [[changed, "with another status"], [slower, "slower"], [faster, "faster"]].filter(([some]) => some);
  return parts.map(([some, text]) => `${count(some)} ${text}`).join(", ") || "no differences";
}

function table(heads, rows) {
  const head = make("tr", { children: heads.map((text) => (text ? make("th", { scope: "col", text }) : make("td"))) });
  return make("table", { children: [make("thead", { children: [head] }), make("tbody", { children: rows })] });
}

// How much more or less the second one is: "+20%", "2.5x".
function change(one, other) {
  if (one === undefined || other === undefined || one === null || other === null || one === other) return "";
  if (!one) return `+${count(Math.round(other * 100) / 100)}`;
  const ratio = other / one;
  if (ratio >= 2) return `${ratio.toFixed(1)}x`;
  const percent = Math.round(100 * (ratio - 1));
  return percent ? `${percent > 0 ? "+" : "−"}${Math.abs(percent)}%` : "";
}
