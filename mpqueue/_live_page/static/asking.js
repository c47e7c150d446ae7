// What is asked of the program beside the stream. Nothing here throws.

import { showError } from "./dom.js";

// Undefined where there is no answer, or none that is any use; `missing` where the program says that there is no such thing.
async function get(address, missing = undefined) {
  try {
    const answer = await fetch(address);
    if (answer.ok) return await answer.json();
    return answer.status === 404 ? missing : undefined;
  } catch {
    return undefined;
  }
}

const REST = 1000; // milliseconds until something is asked again that had no answer

// A question about something that is shown: asked again once that has changed, and while there was no answer. It is asked
// once at a time, with a pause behind each answer.
export class Question {
  #about = undefined; // what the last answer is about, or the one that is on its way
  #asking = false;
  #pause = 0; // the timer of the pause
  #turn = 0; // counts how often something else was shown: an answer to an earlier question is none

  // `pause` tells the milliseconds of the pause behind an answer; `onFree` is called when the next one may be asked.
  constructor(pause, onFree = () => {}) {
    this.pause = pause;
    this.onFree = onFree;
  }

  // Ask by `ask()`, and have the answer by `take(answer)`, where what it is `about` has changed.
  async ask(about, ask, take) {
    if (this.#asking || this.#pause || about === this.#about) return;
    const turn = this.#turn;
    this.#asking = true;
    this.#about = about;
    const answer = await ask();
    this.#asking = false;
    if (turn !== this.#turn) {
      this.onFree();
      return;
    }
    if (answer === undefined) this.#about = undefined;
    else take(answer);
    this.#pause = setTimeout(() => {
      this.#pause = 0;
      this.onFree();
    }, answer === undefined ? REST : this.pause(answer));
  }

  // The answer is not all, or not of now: ask once more.
  again() {
    this.#about = undefined;
  }

  // Something else is shown.
  drop() {
    this.#turn += 1;
    this.#about = undefined;
    clearTimeout(this.#pause);
    this.#pause = 0;
  }
}

// A page of a job's items, with how the job stands.
export const askForItems = (number, query) => get(`jobs/${number}/items?${query}`);
// {index} of the item with that id, as the address has it; of null where there is none.
export const askForPlace = (number, id) => get(`jobs/${number}/find?${new URLSearchParams({ id })}`, { index: null });
// False where there is no such item.
export const askForItem = (number, index) => get(`jobs/${number}/items/${index}`, false);
export const askForFailures = (number) => get(`jobs/${number}/failures`);
export const askForThroughput = (number) => get(`jobs/${number}/throughput`);
export const askForComparison = (one, other) => get(`jobs/${one}/compare/${other}`);
// The numbers of the jobs that it makes sense to compare it with.
export const askForLike = (number) => get(`jobs/${number}/like`);
export const askForJobs = () => get("jobs");
// What the workers did in the last `seconds`, and what they use now.
export const askForHistory = (seconds) => get(`workers?seconds=${seconds}`);

// Press a button of a job: true where it was done, else the page shows why it could not be.
export const act = (job, action, body = {}) => post(`jobs/${job.number}/${action}`, body, job.id);

// Have so many workers; answers as `act`.
export const resize = (concurrency) => post("workers", { concurrency }, "The number of workers stays");

// Where each worker is: [{worker, stack}], or {error}.
export async function askForStacks() {
  try {
    const answer = await fetch("stacks", { method: "POST" });
    const told = await answer.json();
    return answer.ok ? told.workers : { error: told.error ?? answer.statusText };
  } catch {
    return { error: "the program can't be reached." };
  }
}

let last = Promise.resolve(); // until the program has answered what was asked of it before

// One at a time: a browser may have several on their way, and they come in any order.
function post(address, body, what) {
  last = last.then(() => send(address, body, what));
  return last;
}

async function send(address, body, what) {
  let error = "";
  try {
    const answer = await fetch(address, { method: "POST", body: JSON.stringify(body) });
    if (!answer.ok) error = (await answer.json()).error ?? answer.statusText;
  } catch {
    error = "the program can't be reached.";
  }
  showError(error && `${what}: ${error}`);
  return error === "";
}

const TOGETHER = 200; // milliseconds for which questions for labels are collected
const wanted = new Map(); // by job: the indices of items whose labels are to be asked for
let timer = 0;

// What an item is called; undefined while that is not known: then it is asked for, and `then` called.
export function labelOf(job, index, then) {
  const known = job.labels.get(index);
  if (known !== undefined || index === null) return known;
  if (!wanted.has(job)) wanted.set(job, new Set());
  wanted.get(job).add(index);
  if (!timer) timer = setTimeout(() => askForLabels(then), TOGETHER);
  return undefined;
}

async function askForLabels(then) {
  const asked = [...wanted];
  wanted.clear();
  timer = 0;
  for (const [job, indices] of asked) {
    const told = await get(`jobs/${job.number}/labels?items=${[...indices].slice(0, 200).join(",")}`);
    for (const [index, label] of Object.entries(told ?? {})) job.labels.set(Number(index), label);
  }
  then();
}
