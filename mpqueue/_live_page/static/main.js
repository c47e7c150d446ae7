// The page: what comes in goes into the store, and what is seen is drawn from there, once a frame at most.

import { go, onBack, where } from "./address.js";
import { askForPlace, Question } from "./asking.js";
import { byId, setText, show } from "./dom.js";
import { progress } from "./format.js";
import { Keys } from "./keys.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { CompareView } from "./views/compare_view.js";
import { FailuresView } from "./views/failures_view.js";
import { ItemList } from "./views/item_list.js";
import { ItemView } from "./views/item_view.js";
import { inOrder, isActive, JobList } from "./views/job_list.js";
import { announce, JobView } from "./views/job_view.js";
import { StagesView } from "./views/stages_view.js";
import { StacksView } from "./views/stacks_view.js";
import { what, WorkersView } from "./views/workers_view.js";

const store = new Store();
let selected = null; // the number of the job that is looked at
let chosen = false; // by the user; else it is the one that is at work
let wanted = where(); // what the address names, until it is there
let drawing = false;
let told = false; // all that there was when the stream began

const keys = new Keys();
const itemView = new ItemView(step, () => go(store.jobs.get(selected)?.id ?? null));
const items = new ItemList(openItem, draw);
items.onRow = () => {
  // The next item was asked for before its row had come.
  if (stepping && items.item !== null) {
    stepping = false;
    openItem(store.jobs.get(selected), items.item, true);
  }
};
let stepping = false;
const jobView = new JobView(keys);
const failures = new FailuresView((group) => items.showGroup(group));
const compare = new CompareView((number, item) => {
  selected = number;
  openItem(store.jobs.get(number), item);
  draw();
}, draw);
const stages = new StagesView(select);
const workers = new WorkersView(keys, draw);
new StacksView((number) => {
  const lane = store.lanes.find((one) => one.number === number);
  return lane === undefined ? "" : what(store, lane, selected, stream.live, store.now(stream.live), draw);
});
const jobs = new JobList(select, draw);

function select(number) {
  chosen = true;
  selected = number;
  wanted = null;
  itemView.close();
  go(store.jobs.get(number).id);
  draw();
}

// `item` has its index and its id.
function openItem(job, item, instead = false) {
  chosen = true; // the page does not go on to another job by itself
  wanted = null;
  itemView.open(job, item.index);
  go(job.id, item.id, instead);
}

function step(by) {
  items.move(by);
  stepping = items.item === null;
  if (!stepping) openItem(store.jobs.get(selected), items.item, true);
}

onBack((place) => {
  wanted = place;
  draw();
});

// Show what the address names, as soon as that is there; until then, say that it is not.
function follow() {
  setText(byId("nowhere-text"), "");
  if (wanted === null) return;
  const { job: id, item, lost } = wanted;
  if (lost) {
    itemView.close();
    setText(byId("nowhere-text"), "This address leads to no job and no item.");
    return;
  }
  const job = [...store.jobs.values()].findLast((one) => one.id === id);
  if (id !== null && job === undefined) {
    itemView.close();
    setText(byId("nowhere-text"), `There is no job “${id}” here. It may have been cleared, or belong to another program.`);
    return;
  }
  chosen = job !== undefined;
  selected = job === undefined ? null : job.number;
  if (item === null) {
    itemView.close();
    wanted = null;
  } else if (wanted.missing) {
    itemView.close();
    setText(byId("nowhere-text"), `The job “${id}” has no item “${item}”.`);
  } else if (stream.live) find(job, wanted);
}

const places = new Question(() => 0, draw);

function find(job, place) {
  const take = ({ index }) => {
    if (place !== wanted) return; // the user has gone elsewhere meanwhile
    if (index === null) place.missing = true;
    else {
      wanted = null;
      itemView.open(job, index, itemView.index !== null);
      items.at(index);
    }
  };
  places.ask(place, () => askForPlace(job.number, place.item), take);
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
    const nowhere = byId("nowhere-text").textContent !== "";
    show(byId("nowhere"), nowhere);
    show(byId("no-jobs"), all.length === 0 && !nowhere);
    document.body.toggleAttribute("data-empty", all.length === 0);
    items.render(job, live);
    jobs.render(all, job?.state.stage ?? selected, live);
    stages.render(job, all, live);
    jobView.render(job, live, now, store.canAct);
    compare.render(job, all, live);
    failures.render(job, live, store.canAct, items);
    workers.render(store, selected, live, now);
    itemView.render(job, live, now, store.canAct);
    setTitle();
  });
}

// The job that is looked at: the one that was chosen, else the one that is at work; it stays at one that has ended until
// another one is at work.
function choose(all) {
  let job = all.find((one) => one.number === selected);
  if (wanted !== null && (wanted.lost || (wanted.job !== null && job?.id !== wanted.job))) job = undefined;
  else if (job === undefined || !chosen) {
    const known = inOrder(all);
    const atWork = known.find(isActive);
    const started = known.filter(({ state }) => state.startedAt).sort((a, b) => b.state.startedAt - a.state.startedAt);
    if (job === undefined || !job.state.startedAt || (atWork !== undefined && !isActive(job))) job = atWork ?? started[0] ?? known[0];
    chosen = chosen && job !== undefined && job.number === selected;
  }
  selected = job === undefined ? null : job.number;
  return job ?? null;
}

function setTitle() {
  const job = store.jobs.get(selected);
  const title = job ? [progress(job.state), job.id, "mpqueue"].filter(Boolean).join(" · ") : "mpqueue";
  if (document.title !== title) document.title = title;
}

setInterval(() => stream.live && draw(), 1000); // clocks go on between two messages
