// What is known: how each job stands, and the workers. Filled by the stream, read by the views. Items are not kept here:
// the list asks for the rows that it shows.

export class JobStore {
  constructor(number, id) {
    this.number = number;
    this.id = id;
    this.latest = null; // how it stands, as the stream said last
    this.shown = null; // the same, as it came with the rows that are shown; null: no rows are shown
    this.labels = new Map(); // what items are called, by index
  }

  // What is shown of it everywhere: never anything else than its rows say.
  get state() {
    return this.shown ?? this.latest;
  }
}

const MOST = 400; // samples of a worker

export class Store {
  jobs = new Map(); // by number
  lanes = [];
  stretches = new Map(); // by lane: [start, end, kind, job, item], in order, of work that has ended
  samples = new Map(); // by lane: [at, share of a CPU or null, bytes of memory, CPU seconds], in order, since they were shown
  marks = []; // [lane, at, why, job, item]: ends of workers
  concurrency = 0; // workers that there are to be
  canResize = false;
  canLook = false;
  canAct = false;
  clock = { server: Date.now(), here: performance.now() };

  hello({ canResize, canLook, canAct, now }) {
    this.before = this.jobs;
    this.jobs = new Map();
    this.stretches.clear();
    this.samples.clear();
    this.marks = [];
    this.lanes = [];
    Object.assign(this, { canResize, canLook, canAct });
    this.#setClock(now);
  }

  jobState(state) {
    let job = this.jobs.get(state.number);
    if (job === undefined) {
      const known = this.before?.get(state.number); // from before a connection was lost
      job = known?.id === state.jobId ? known : new JobStore(state.number, state.jobId);
      this.jobs.set(state.number, job);
    }
    const before = job.latest;
    job.latest = state;
    return before;
  }

  gone({ number }) {
    this.jobs.delete(number);
  }

  // Of lanes, only those come that have changed.
  workers({ now, concurrency, lanes, gone }) {
    this.#setClock(now);
    this.concurrency = concurrency;
    if (lanes.length || gone.length) {
      const known = new Map(this.lanes.map((lane) => [lane.number, lane]));
      for (const lane of lanes) known.set(lane.number, lane);
      for (const number of gone) known.delete(number);
      this.lanes = [...known.values()].sort((a, b) => a.number - b.number);
    }
  }

  // What the workers did, and what they use: asked for while they are shown.
  history({ now, stretches, marks, use }) {
    this.stretches.clear();
    for (const [lane, ...stretch] of stretches) entry(this.stretches, lane).push(stretch);
    this.marks = marks;
    for (const [lane, cpu, memory, started] of use) {
      const known = entry(this.samples, lane);
      const [at, , , before, same] = known.at(-1) ?? [];
      known.push([now, same === started ? (1000 * (cpu - before)) / (now - at) : null, memory, cpu, started]);
      if (known.length > MOST) known.shift();
    }
  }

  // Milliseconds since the epoch, by the program's clock; stands still once nothing more comes.
  now(live) {
    return this.clock.server + (live ? performance.now() - this.clock.here : 0);
  }

  #setClock(now) {
    this.clock = { server: now, here: performance.now() };
  }
}

function entry(map, key) {
  if (!map.has(key)) map.set(key, []);
  return map.get(key);
}
