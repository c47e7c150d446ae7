// The page: what comes in goes into the store, and what is seen is drawn from there, once a frame at most.

import { byId, say, setText, show } from "./dom.js";
import { count, percent, plural } from "./format.js";
import { ItemList } from "./item_list.js";
import { ItemView } from "./item_view.js";
import { JobList } from "./job_list.js";
import { announce, JobView } from "./job_view.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { StacksView } from "./stacks_view.js";
import { what, WorkersView } from "./workers_view.js";

const store = new Store();
let selected = null; // the number of the job that is looked at
let chosen = false; // by the user; else it is the one that was started last
let drawing = false;
let told = false; // all that there was when the stream began

const itemView = new ItemView((steps) => items.move(steps));
const items = new ItemList((job, index) => {
  chosen = true; // the page does not go on to another job by itself
  itemView.open(job, index);
});
const jobView = new JobView(showError);
const workers = new WorkersView(showError);
new StacksView((number) => {
  const lane = store.lanes.find((one) => one.number === number);
  return lane === undefined ? "" : what(store, lane, selected, store.now(stream.live));
});
const jobs = new JobList((number) => {
  chosen = true;
  selected = number;
  draw();
});

const CONNECTION = {
  connecting: ["Connecting…", ""],
  live: ["Live", ""],
  stalled: ["No news", "The program says nothing: it is stopped, or very busy. This is its last state."],
  lost: ["Connection lost", "The program has ended, or can't be reached. This is its last state; the page tries to connect again."],
  closed: ["Closed", "The queue was closed. This is its last state."],
  refused: ["Ended", "The program has ended. This is its last state."],
};

const stream = new Stream(
  {
    hello: (data) => {
      told = false;
      store.hello(data);
    },
    "job:state": (data) => {
      const before = store.jobState(data);
      announce(before, data);
      draw();
    },
    "job:progress": (data) => {
      store.progress(data);
      draw();
    },
    "job:gone": (data) => {
      store.gone(data);
      draw();
    },
    workers: (data) => {
      store.workers(data);
      told = true;
      draw();
    },
  },
  (state) => {
    const [short, long] = CONNECTION[state];
    byId("connection").dataset.state = state;
    setText(byId("connection-text"), short);
    setText(byId("banner"), long);
    byId("banner").classList.remove("error");
    show(byId("banner"), long !== "");
    draw();
  },
  (states) => {
    for (const state of states) store.jobState(state);
    setTitle();
  },
);

function showError(text) {
  setText(byId("banner"), text);
  byId("banner").classList.add("error");
  show(byId("banner"), text !== "");
}

function draw() {
  if (drawing || !told) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const all = [...store.jobs.values()];
    const job = choose(all);
    const now = store.now(stream.live);
    setText(byId("about"), store.concurrency ? plural(store.concurrency, "worker") : "");
    jobs.render(all, selected);
    jobView.render(job, stream.live, now);
    workers.render(store, selected, stream.live, now);
    items.render(job);
    itemView.render(job);
    setTitle();
  });
}

// The job that is looked at: the one that was chosen, else the newest that has started.
function choose(all) {
  let job = all.find((one) => one.number === selected);
  if (job === undefined || !chosen) {
    const started = all.filter((one) => one.state.startedAt).sort((a, b) => b.state.startedAt - a.state.startedAt);
    const running = started.find((one) => !one.state.finishedAt);
    // It stays at one that has ended until another one runs.
    if (job === undefined || (running !== undefined && job.state.finishedAt) || !job.state.startedAt) {
      job = running ?? started[0] ?? all[all.length - 1];
    }
    chosen = chosen && job !== undefined && job.number === selected;
  }
  selected = job === undefined ? null : job.number;
  return job ?? null;
}

function setTitle() {
  const job = store.jobByNumber(selected);
  const title = job ? `${percent(job.state.done, job.state.total)} % · ${job.id} · mpqueue` : "mpqueue";
  if (document.title !== title) document.title = title;
}

setInterval(() => stream.live && draw(), 1000); // clocks go on between two messages
