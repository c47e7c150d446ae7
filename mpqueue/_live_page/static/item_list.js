// The items of a job: filtered, searched, and only so many rows made as can be seen.

import { byId, make, setAttribute, setText, show } from "./dom.js";
import { asText, count, plural, statusName } from "./format.js";

const STATUSES = ["processing", "retry", "failed", "completed", "pending"];
const SPARE = 6; // rows beyond the edges
const EVERY = 250; // milliseconds between two times that a changing job is filtered anew

export class ItemList {
  #job = null;
  #view = []; // indices of the items that are listed, in order
  #filter = "all";
  #words = [];
  #seen = -1; // the version of the job that #view was made from
  #made = 0;
  #rows = new Map(); // by index of the item
  #active = null; // index of the item that the keyboard is at

  constructor(onOpen) {
    this.onOpen = onOpen;
    this.list = byId("list");
    this.body = byId("rows");
    this.search = byId("search");
    this.list.addEventListener("scroll", () => this.#paint(), { passive: true });
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focus", () => this.#focused());
    new ResizeObserver(() => this.#paint()).observe(this.list);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.open(Number(row.dataset.index));
    });
    let timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#searched(), 120);
    });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        this.#searched();
        this.list.focus();
      }
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof Element && event.target.closest("input, textarea, dialog[open]");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        this.search.focus();
      }
    });
    this.#makeFilters();
  }

  #makeFilters() {
    this.filters = new Map();
    for (const name of ["all", ...STATUSES]) {
      const number = make("b");
      const label = name === "all" ? "All" : statusName(name);
      const button = make("button", { type: "button", "aria-pressed": String(name === "all"), children: [`${label} `, number] });
      button.addEventListener("click", () => this.#choose(name));
      byId("filters").append(button);
      this.filters.set(name, { button, number });
    }
  }

  #choose(name) {
    this.#filter = name;
    for (const [other, { button }] of this.filters) setAttribute(button, "aria-pressed", String(other === name));
    this.#refilter();
    this.list.scrollTop = 0;
  }

  #searched() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.join(" ") === this.#words.join(" ")) return;
    this.#words = words;
    this.#refilter();
    this.list.scrollTop = 0;
  }

  // -- what is listed -----------------------------------------------------------------------------------------

  render(job) {
    show(byId("items"), job !== null);
    if (job !== this.#job) {
      this.#job = job;
      this.#active = null;
      this.#seen = -1;
      this.list.scrollTop = 0;
      for (const row of this.#rows.values()) row.remove();
      this.#rows.clear();
    }
    if (job === null) return;
    const { counts, total, sparse } = job.state;
    for (const [name, { button, number }] of this.filters) {
      const n = name === "all" ? total : counts[name];
      setText(number, count(n));
      show(button, !(sparse && (name === "completed" || name === "pending")));
    }
    show(byId("sparse"), sparse);
    if (this.#seen === job.version) return;
    if (this.#seen === -1 || performance.now() - this.#made > EVERY) this.#refilter();
    else this.#paint(true); // the rows that are seen are always true
  }

  #refilter() {
    const job = this.#job;
    if (job === null) return;
    this.#made = performance.now();
    this.#seen = job.version;
    const all = job.indices();
    const whole = this.#filter === "all" && !this.#words.length;
    this.#view = whole ? all : all.filter((index) => this.#isListed(job.items[index]));
    const empty = this.#view.length === 0;
    show(byId("list-empty"), empty);
    show(this.list, !empty);
    if (empty) setText(byId("list-empty"), this.#words.length ? `Nothing found for “${this.search.value.trim()}”.` : "No items here just now.");
    const found = `${plural(this.#view.length, "item")} listed`;
    setText(byId("list-count"), whole || empty ? "" : found);
    this.#paint(true);
  }

  #isListed(item) {
    if (this.#filter !== "all" && item.status !== this.#filter) return false;
    if (!this.#words.length) return true;
    item.searched ??= `${asText(item.id)} ${item.label ?? ""} ${textOf(item)} ${item.proposedAlt ?? ""}`.toLowerCase();
    return this.#words.every((word) => item.searched.includes(word));
  }

  // -- rows ---------------------------------------------------------------------------------------------------

  get #rowHeight() {
    return parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  }

  #paint(changed = false) {
    const height = this.#rowHeight;
    const first = Math.max(0, Math.floor(this.list.scrollTop / height) - SPARE);
    const last = Math.min(this.#view.length, Math.ceil((this.list.scrollTop + this.list.clientHeight) / height) + SPARE);
    const size = `${this.#view.length * height}px`;
    if (this.body.style.height !== size) this.body.style.height = size;
    const wanted = new Set(this.#view.slice(first, last));
    for (const [index, row] of this.#rows) {
      if (!wanted.has(index)) {
        row.remove();
        this.#rows.delete(index);
      }
    }
    for (let at = first; at < last; at += 1) {
      const index = this.#view[at];
      let row = this.#rows.get(index);
      if (row === undefined) {
        row = make("div", {
          class_: "row", role: "option", id: `row-${index}`, "data-index": index,
          children: [make("span", { class_: "chip" }), make("span", { class_: "id" }), make("span", { class_: "text" })],
        });
        this.#rows.set(index, row);
        this.body.append(row);
        this.#fill(row, this.#job.items[index]);
      } else if (changed && row.item !== this.#job.items[index]) {
        this.#fill(row, this.#job.items[index]);
      }
      const top = `${at * height}px`;
      if (row.style.top !== top) row.style.top = top;
      setAttribute(row, "aria-posinset", String(at + 1));
      setAttribute(row, "aria-setsize", String(this.#view.length));
      setAttribute(row, "aria-selected", String(index === this.#active));
    }
    const active = this.#active !== null && this.#rows.has(this.#active) ? `row-${this.#active}` : "";
    if (active) setAttribute(this.list, "aria-activedescendant", active);
    else this.list.removeAttribute("aria-activedescendant");
  }

  #fill(row, item) {
    row.item = item;
    const [chip, id, text] = row.children;
    setAttribute(row, "data-state", item.status);
    setAttribute(chip, "data-state", item.status);
    setText(chip, statusName(item.status));
    setText(id, nameOf(item));
    setAttribute(id, "title", item.label === undefined ? "" : `${item.label} (${asText(item.id)})`);
    setText(text, textOf(item));
  }

  // -- the keyboard -------------------------------------------------------------------------------------------

  #key(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.move(steps[event.key]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (this.#active !== null) this.open(this.#active);
    }
  }

  // Reached by keyboard: there is an item to begin with. A click chooses its own.
  #focused() {
    if (this.#active === null && this.list.matches(":focus-visible")) this.move(0);
  }

  // Go so many items on; returns the index of the one that is reached.
  move(steps) {
    if (!this.#view.length) return null;
    const seen = Math.ceil(this.list.scrollTop / this.#rowHeight); // the first that is seen, where none was chosen
    const at = this.#active === null ? seen : this.#position(this.#active) + steps;
    this.#activate(Math.min(this.#view.length - 1, Math.max(0, at)));
    return this.#active;
  }

  #position(index) {
    const at = this.#view.indexOf(index);
    if (at >= 0) return at;
    const after = this.#view.findIndex((other) => other > index); // it is not listed any more
    return after < 0 ? this.#view.length - 1 : after;
  }

  #activate(at) {
    this.#active = this.#view[at];
    const height = this.#rowHeight;
    const top = at * height;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + height > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + height - this.list.clientHeight;
    this.#paint();
  }

  open(index) {
    this.#active = index;
    this.#paint();
    this.list.focus(); // where the focus returns to
    this.onOpen(this.#job, index);
  }
}

// What an item is called: its label, or its id where that says as much.
export const nameOf = (item) => item.label ?? asText(item.id);

// What a row says of an item beside its status.
export function textOf(item) {
  if (item.status === "completed") return item.proposedAlt ?? (item.result === null ? "" : asText(item.result));
  if (item.error === undefined) return "";
  return item.error === item.errorType ? item.error : `${item.errorType}: ${item.error}`;
}
