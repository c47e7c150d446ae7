// What is known: jobs, their items, the workers. Filled by the stream, read by the views.

export class JobStore {
  constructor(number, id) {
    this.number = number;
    this.id = id;
    this.state = null;
    this.items = []; // by index; of a very long job only some are there
    this.order = []; // the indices that are there, ascending once `sorted`
    this.sorted = true;
    this.version = 0; // counts the changes of any item
  }

  take(items) {
    for (const item of items) {
      const { index } = item;
      if (this.items[index] === undefined) {
        if (this.order.length && index < this.order[this.order.length - 1]) this.sorted = false;
        this.order.push(index);
      }
      this.items[index] = item;
    }
    if (items.length) this.version += 1;
  }

  indices() {
    if (!this.sorted) {
      this.order.sort((a, b) => a - b);
      this.sorted = true;
    }
    return this.order;
  }
}

export class Store {
  jobs = new Map(); // by id
  lanes = [];
  stretches = new Map(); // by lane: [start, end, kind, job, item], in order
  concurrency = 0; // workers that there are to be
  canResize = false;
  clock = { server: Date.now(), here: performance.now() };

  hello({ canResize, now }) {
    this.jobs.clear();
    this.stretches.clear();
    this.lanes = [];
    this.canResize = canResize;
    this.#setClock(now);
  }

  progress({ jobId, items }) {
    this.jobs.get(jobId)?.take(items);
  }

  jobState(state) {
    let job = this.jobs.get(state.jobId);
    if (job === undefined || job.number !== state.number) {
      job = new JobStore(state.number, state.jobId);
      this.jobs.set(state.jobId, job);
    }
    const before = job.state;
    job.state = state;
    return before;
  }

  gone({ jobId, number }) {
    if (this.jobs.get(jobId)?.number === number) this.jobs.delete(jobId);
  }

  workers({ now, concurrency, lanes, stretches }) {
    this.#setClock(now);
    this.concurrency = concurrency;
    this.lanes = lanes;
    for (const [lane, ...stretch] of stretches) {
      let known = this.stretches.get(lane);
      if (known === undefined) this.stretches.set(lane, (known = []));
      // One that grows is sent again.
      const again = known.findLastIndex(([start]) => start <= stretch[0]);
      if (again >= 0 && known[again][0] === stretch[0]) known[again] = stretch;
      else known.push(stretch);
      while (known.length > 400) known.shift();
    }
  }

  jobByNumber(number) {
    for (const job of this.jobs.values()) if (job.number === number) return job;
    return undefined;
  }

  // Milliseconds since the epoch, by the program's clock; stands still once nothing more comes.
  now(live) {
    return this.clock.server + (live ? performance.now() - this.clock.here : 0);
  }

  #setClock(now) {
    this.clock = { server: now, here: performance.now() };
  }
}
