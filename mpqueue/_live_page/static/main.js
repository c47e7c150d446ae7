// The page: what comes in goes into the store, and what is seen is drawn from there, once a frame at most.

import { go, onBack, where } from "./address.js";
import { byId, setText, show } from "./dom.js";
import { percent, plural } from "./format.js";
import { Keys } from "./keys.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { CompareView } from "./views/compare_view.js";
import { FailuresView } from "./views/failures_view.js";
import { ItemList } from "./views/item_list.js";
import { ItemView } from "./views/item_view.js";
import { JobList } from "./views/job_list.js";
import { announce, JobView } from "./views/job_view.js";
import { StacksView } from "./views/stacks_view.js";
import { what, WorkersView } from "./views/workers_view.js";

const store = new Store();
let selected = null; // the number of the job that is looked at
let chosen = false; // by the user; else it is the one that was started last
let wanted = where(); // what the address names, until it is there
let drawing = false;
let told = false; // all that there was when the stream began

const keys = new Keys();
const itemView = new ItemView(step, () => go(store.jobs.get(selected)?.id ?? null), showError);
const items = new ItemList(openItem, draw);
items.onRow = () => {
  // The next item was asked for before its row had come.
  if (stepping && items.index !== null) {
    stepping = false;
    openItem(store.jobs.get(selected), items.index, true);
  }
};
let stepping = false;
const jobView = new JobView(showError, keys);
const failures = new FailuresView((group) => items.showGroup(group), showError);
const compare = new CompareView((number, index) => {
  selected = number;
  openItem(store.jobs.get(number), index);
  draw();
});
const workers = new WorkersView(showError, keys, draw);
new StacksView((number) => {
  const lane = store.lanes.find((one) => one.number === number);
  return lane === undefined ? "" : what(store, lane, selected, stream.live, store.now(stream.live), draw);
});
const jobs = new JobList((number) => {
  chosen = true;
  selected = number;
  itemView.close();
  go(store.jobs.get(number).id);
  draw();
}, draw);

function openItem(job, index, instead = false) {
  chosen = true; // the page does not go on to another job by itself
  itemView.open(job, index);
  go(job.id, index, instead);
}

function step(by) {
  items.move(by);
  stepping = items.index === null;
  if (!stepping && items.index !== null) openItem(store.jobs.get(selected), items.index, true);
}

onBack((place) => {
  wanted = place;
  draw();
});

// Show what the address names, as soon as that is there.
function follow() {
  if (wanted === null) return;
  const job = [...store.jobs.values()].findLast((one) => one.id === wanted.job);
  if (wanted.job !== null && job === undefined) return;
  chosen = job !== undefined;
  selected = job === undefined ? null : job.number;
  if (wanted.item === null) itemView.close();
  else if (wanted.item < job.state.total) {
    itemView.open(job, wanted.item, itemView.index !== null);
    items.at(wanted.item);
  }
  wanted = null;
}

const CONNECTION = {
  connecting: ["Connecting…", ""],
  live: ["Live", ""],
  stalled: ["No news", "The program says nothing: it is stopped, or very busy. This is its last state; what ran then is shown as unknown."],
  lost: ["Connection lost", "The program has ended, or can't be reached. This is its last state; what ran then is shown as unknown. The page tries to connect again."],
  closed: ["Closed", "The queue was closed. This is its last state."],
  refused: ["Ended", "The program has ended. This is its last state; what ran then is shown as unknown."],
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
    const live = stream.live;
    const all = [...store.jobs.values()];
    follow();
    const job = choose(all);
    const now = store.now(live);
    setText(byId("about"), store.concurrency ? plural(store.concurrency, "worker") : "");
    items.render(job, live);
    jobs.render(all, selected, live);
    jobView.render(job, live, now, store.canAct);
    compare.render(job, all, live);
    failures.render(job, live, store.canAct);
    workers.render(store, selected, live, now);
    itemView.render(job, live, now, store.canAct);
    setTitle();
  });
}

// The job that is looked at: the one that was chosen, else the newest that has started.
function choose(all) {
  let job = all.find((one) => one.number === selected);
  if (job === undefined || !chosen) {
    const started = all.filter((one) => one.latest.startedAt).sort((a, b) => b.latest.startedAt - a.latest.startedAt);
    const running = started.find((one) => !one.latest.finishedAt);
    // It stays at one that has ended until another one runs.
    if (job === undefined || (running !== undefined && job.latest.finishedAt) || !job.latest.startedAt) {
      job = running ?? started[0] ?? all[all.length - 1];
    }
    chosen = chosen && job !== undefined && job.number === selected;
  }
  selected = job === undefined ? null : job.number;
  return job ?? null;
}

function setTitle() {
  const job = store.jobs.get(selected);
  const title = job ? `${percent(job.state.done, job.state.total)}% · ${job.id} · mpqueue` : "mpqueue";
  if (document.title !== title) document.title = title;
}

setInterval(() => stream.live && draw(), 1000); // clocks go on between two messages
