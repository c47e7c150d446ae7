// Keys that work everywhere on the page, but where one types; and the list of all keys, by `?`.

import { byId, make } from "./dom.js";

const ALL = [
  ["/", "search the items"],
  ["j", "search or choose a job"],
  ["↑ ↓", "move through the items; also Page Up, Page Down, Home, End"],
  ["Enter", "open the item"],
  ["Esc", "close it"],
  ["p", "pause or resume the job, when confirmed"],
  ["+ −", "one worker more, one fewer, when confirmed"],
  ["Alt ←", "back to what was shown before"],
  ["?", "show this list"],
];

export class Keys {
  #actions = new Map();

  constructor() {
    const rows = ALL.map(([key, text]) => make("div", { children: [make("dt", { children: [make("kbd", { text: key })] }), make("dd", { text })] }));
    byId("keys-list").replaceChildren(...rows);
    byId("show-keys").addEventListener("click", () => byId("keys").showModal());
    byId("keys-close").addEventListener("click", () => byId("keys").close());
    this.on("?", () => byId("keys").showModal());
    this.on("/", () => byId("search").focus());
    this.on("j", () => [byId("job-search"), byId("job-choice")].find((one) => one.checkVisibility())?.focus());
    document.addEventListener("keydown", (event) => this.#pressed(event));
  }

  on(key, action) {
    this.#actions.set(key, action);
  }

  #pressed(event) {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, dialog:modal");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return; // Ctrl: the zoom
    const action = this.#actions.get(event.key);
    if (action === undefined) return;
    event.preventDefault();
    action();
  }
}
