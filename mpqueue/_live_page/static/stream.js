// The connection: server-sent events while the tab is visible, a question now and then while it is hidden.
//
// A hidden tab gives its connection back, since a browser has only six for one server.

import { askForJobs } from "./asking.js";

const STALLED = 6000; // milliseconds without any news; the server says something every two seconds
const HIDDEN = 5000; // how long a tab may be hidden before it disconnects, and how often it asks then

export class Stream {
  #source = null;
  #lastNews = 0;
  #over = false;
  #timer = 0;
  #state = "connecting";

  // `handlers`: by event name; `onState`: "connecting", "live", "stalled", "lost", "closed", "refused"; `onIdle`: job
  // states, asked for while the tab is hidden.
  constructor(handlers, onState, onIdle) {
    this.handlers = handlers;
    this.onState = onState;
    this.onIdle = onIdle;
    document.addEventListener("visibilitychange", () => this.#visibilityChanged());
    setInterval(() => this.#check(), 1000);
    this.#connect();
  }

  get live() {
    return this.#state === "live";
  }

  #connect() {
    const source = (this.#source = new EventSource("events"));
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.#lastNews = Date.now();
        this.#tell("live");
        handle(JSON.parse(event.data));
      });
    }
    source.addEventListener("closed", () => {
      this.#over = true;
      source.close();
      this.#tell("closed");
    });
    source.addEventListener("error", () => {
      if (this.#over || this.#source !== source) return;
      // A browser gives up for good where it is refused: another program has this port by now.
      this.#tell(source.readyState === EventSource.CLOSED ? "refused" : "lost");
    });
  }

  #tell(state) {
    if (state === this.#state || (this.#over && state !== "closed")) return;
    this.#state = state;
    this.onState(state);
  }

  #check() {
    if (this.#state === "live" && this.#source && Date.now() - this.#lastNews > STALLED) this.#tell("stalled");
  }

  #visibilityChanged() {
    clearTimeout(this.#timer);
    if (this.#over) return;
    if (document.hidden) {
      this.#timer = setTimeout(() => this.#idle(), HIDDEN);
    } else if (this.#source === null) {
      this.#connect();
    }
  }

  async #idle() {
    this.#source?.close();
    this.#source = null;
    const states = await askForJobs();
    if (states !== undefined) this.onIdle(states); // else it is shown as lost when the tab is visible again
    if (document.hidden) this.#timer = setTimeout(() => this.#idle(), HIDDEN);
  }
}
