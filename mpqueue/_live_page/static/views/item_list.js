// The items of a job. The program filters, searches and sorts them, and sends the rows that can be seen.

import { askForItems, Question } from "../asking.js";
import { byId, make, say, setAttribute, setText, show } from "../dom.js";
import { asText, count, duration, inTwo, listed, nameOf, percent, plural, shade, statusName, textOf } from "../format.js";

const STATUSES = ["failed", "processing", "retry", "completed", "pending"];
const SPARE = 30; // rows that are asked for beyond the edges
const DRAWN = 6; // rows that are made beyond the edges
const PAUSE = 150; // milliseconds between two questions at least
const TALLEST = 8_000_000; // pixels: browsers have no taller elements
const COLUMNS = [["index", "Item"], ["elapsed", "Duration"], ["attempts", "Tries"]];

export class ItemList {
  #job = null;
  #live = false;
  #filter = "all";
  #group = null; // the group of failures whose items are listed
  #search = "";
  #sort = "index";
  #descending = false;
  #rows = []; // those that have come
  #offset = 0; // the place of the first of them
  #matching = null; // how many items are listed; null: not known yet
  #searched = null; // how many items were searched so far, where not all were
  #elements = new Map(); // by place
  #active = null; // {place, index} of the item that the keyboard is at; index is null until it has come
  // A list that takes the program long is asked for less often, but for a search that goes on.
  #question = new Question(({ milliseconds, searched }) => Math.max(PAUSE, searched === undefined ? 5 * milliseconds : 0), () => this.#ask());

  constructor(onOpen, onAnswer) {
    this.onOpen = onOpen;
    this.onAnswer = onAnswer;
    this.list = byId("list");
    this.body = byId("rows");
    this.search = byId("search");
    this.list.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focus", () => this.#focused());
    new ResizeObserver(() => this.#scrolled()).observe(this.list);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row?.item) this.open(Number(row.dataset.place), row.item);
    });
    let timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#searchedFor(), 200);
    });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        this.#searchedFor();
        this.list.focus();
      }
    });
    this.#makeFilters();
    this.#makeColumns();
  }

  #makeFilters() {
    this.filters = new Map();
    for (const name of ["all", ...STATUSES]) {
      const number = make("b");
      const word = make("span");
      const button = make("button", { type: "button", "aria-pressed": String(name === "all"), children: [word, " ", number] });
      button.addEventListener("click", () => this.#choose(name));
      byId("filters").append(button);
      this.filters.set(name, { button, number, word });
    }
  }

  #makeColumns() {
    this.columns = new Map();
    for (const [name, text] of COLUMNS) {
      const button = make("button", { type: "button", text });
      button.addEventListener("click", () => this.#sortBy(name));
      byId(`by-${name}`).append(button);
      this.columns.set(name, button);
    }
    this.#showSort();
  }

  #choose(name) {
    this.#filter = name;
    this.#group = null;
    this.#anew();
  }

  // List the items of a group of failures; null: all failed ones.
  showGroup(group) {
    this.#group = group;
    this.#filter = "failed";
    this.#anew();
  }

  // Whether failed items are listed, so that their groups are of use.
  get listsFailed() {
    return this.#filter === "failed";
  }

  // The key of the group that is listed.
  get group() {
    return this.#group?.key;
  }

  // The first press sorts by the most, where that is what one looks for; the next one turns it round.
  #sortBy(name) {
    const first = name !== "index";
    this.#descending = this.#sort === name ? !this.#descending : first;
    this.#sort = name;
    this.#showSort();
    say(`Sorted by ${COLUMNS.find(([one]) => one === name)[1].toLowerCase()}, ${this.#descending ? "descending" : "ascending"}.`);
    this.#anew();
  }

  #showSort() {
    for (const [name, text] of COLUMNS) {
      const button = this.columns.get(name);
      const sorted = this.#sort === name;
      const way = this.#descending ? "descending" : "ascending";
      setText(button, sorted ? `${text} ${this.#descending ? "↓" : "↑"}` : text);
      setAttribute(button, "aria-label", sorted ? `Sorted by ${text.toLowerCase()}, ${way}` : `Sort by ${text.toLowerCase()}`);
      setAttribute(button, "aria-pressed", String(sorted));
    }
  }

  #searchedFor() {
    const search = this.search.value.trim().toLowerCase();
    if (search === this.#search) return;
    this.#search = search;
    this.#anew();
  }

  // Another list: it begins at its top.
  #anew() {
    this.#question.drop();
    this.#active = null;
    this.list.scrollTop = 0;
    for (const [name, { button }] of this.filters) setAttribute(button, "aria-pressed", String(name === this.#filter));
    if (this.#live) this.#ask();
    else this.#paint();
    this.onAnswer();
  }

  // -- what is asked for --------------------------------------------------------------------------------------

  render(job, live) {
    show(byId("items"), job !== null);
    const other = job?.number !== this.#job?.number;
    if (other) {
      if (this.#job !== null) this.#job.shown = null;
      this.#forget();
    }
    this.#job = job;
    this.#live = live;
    if (job === null) return;
    if (other) this.#anew();
    else this.#ask();
    this.#paint();
  }

  #forget() {
    this.#question.drop();
    this.#rows = [];
    this.#offset = 0;
    this.#matching = null;
    this.#searched = null;
    this.#group = null;
    this.#filter = "all"; // what was looked for was in the other job
    this.#search = this.search.value = "";
    for (const element of this.#elements.values()) element.remove();
    this.#elements.clear();
  }

  #ask() {
    const job = this.#job;
    if (job === null || !this.#live) return;
    let sought = null;
    this.#question.ask(
      job.latest.version,
      () => {
        sought = this.#active?.index != null ? this.#active : null;
        return askForItems(job.number, this.#query(sought));
      },
      (told) => this.#take(job, told, sought),
    );
  }

  // What is asked for; with the place of the item that is `sought`, if any.
  #query(sought) {
    const [first, last] = this.#seen(SPARE);
    const query = new URLSearchParams({ offset: first, limit: Math.min(200, Math.max(60, last - first)) });
    if (this.#group !== null) query.set("group", this.#group.key);
    else if (this.#filter !== "all") query.set("status", this.#filter);
    if (this.#search) query.set("search", this.#search);
    if (this.#sort !== "index" || this.#descending) query.set("sort", `${this.#descending ? "-" : ""}${this.#sort}`);
    if (sought !== null) query.set("find", sought.index);
    return query;
  }

  // `sought` is the item whose place was asked for, which the keyboard may have left since.
  #take(job, { state, matching, offset, rows, searched, at }, sought) {
    job.shown = state;
    this.#rows = rows;
    this.#offset = offset;
    this.#matching = matching;
    this.#searched = searched ?? null;
    if (searched !== undefined) this.#question.again(); // the program searches on
    for (const row of rows) job.labels.set(row.index, nameOf(row));
    if (sought !== null && sought === this.#active) {
      if (at != null) sought.place = at;
      else sought.index = null; // it is not listed any more
    } else if (this.#active?.index != null) this.#question.again(); // its place in this list is not known
    if (this.#active !== null) {
      this.#active.place = Math.min(this.#active.place, Math.max(0, matching - 1));
      this.#active.index ??= this.#rowAt(this.#active.place)?.index ?? null;
    }
    this.onAnswer();
    this.onRow?.();
    const [first, last] = this.#seen(0);
    if (first < offset || Math.min(last, matching) > offset + rows.length) this.#question.again();
  }

  #rowAt(place) {
    return this.#rows[place - this.#offset];
  }

  // -- rows ---------------------------------------------------------------------------------------------------

  get #rowHeight() {
    return parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  }

  // How many rows a pixel of the scrollbar stands for, beyond what one has by itself.
  get #scale() {
    const real = (this.#matching ?? 0) * this.#rowHeight;
    const room = Math.max(1, Math.min(real, TALLEST) - this.list.clientHeight);
    return real <= TALLEST ? 1 : (real - this.list.clientHeight) / room;
  }

  // The places of the first row that can be seen and of the one after the last, with so many more on each side.
  #seen(spare) {
    const top = this.list.scrollTop * this.#scale;
    const first = Math.max(0, Math.floor(top / this.#rowHeight) - spare);
    const last = Math.ceil((top + Math.max(this.list.clientHeight, 300)) / this.#rowHeight) + spare;
    return [first, this.#matching === null ? last : Math.min(last, this.#matching)];
  }

  #scrolled() {
    if (this.#job === null) return;
    this.#paint();
    const [first, last] = this.#seen(DRAWN);
    if (first < this.#offset || last > this.#offset + this.#rows.length) {
      this.#question.again();
      this.#ask();
    }
  }

  #paint() {
    const job = this.#job;
    if (job === null) return;
    const { counts } = job.state;
    const all = listed(job.state);
    for (const [name, { button, number, word }] of this.filters) {
      setText(word, name === "all" ? "All" : statusName(name, this.#live));
      setText(number, count(name === "all" ? all : counts[name]));
      button.disabled = !this.#live;
      show(button, name === "all" || name === this.#filter || counts[name] > 0);
      if (name === "failed") button.classList.toggle("bad", counts.failed > 0);
    }
    for (const button of this.columns.values()) button.disabled = !this.#live;
    const matching = this.#matching;
    const empty = matching === 0;
    show(byId("list-empty"), empty && this.#searched === null);
    show(this.list, !empty);
    show(byId("columns"), !empty);
    if (empty) setText(byId("list-empty"), this.#search ? `Nothing found for “${this.search.value.trim()}”.` : this.#nothing(job.state));
    const whole = this.#filter === "all" && !this.#search && this.#group === null;
    let said = whole || empty || matching === null ? "" : `${plural(matching, "item")} listed`;
    if (this.#searched !== null) said = `Searching: ${percent(this.#searched, all)}%, ${count(matching)} found so far`;
    setText(byId("list-count"), said);
    this.#place();
  }

  #nothing(state) {
    const { stage, finishedAt } = state;
    if (listed(state) > 0) return `No ${this.#filter === "pending" ? "waiting" : statusName(this.#filter).toLowerCase()} items.`;
    if (finishedAt) return "This job had no items.";
    return stage === undefined ? "This job has no items yet." : "No item has reached this stage yet.";
  }

  #place() {
    const height = this.#rowHeight;
    const [first, last] = this.#seen(DRAWN);
    const size = `${Math.min(TALLEST, (this.#matching ?? 0) * height)}px`;
    if (this.body.style.height !== size) this.body.style.height = size;
    for (const [place, element] of this.#elements) {
      if (place < first || place >= last) {
        element.remove();
        this.#elements.delete(place);
      }
    }
    if (this.#matching === null) return;
    const shift = this.list.scrollTop * (1 - this.#scale);
    for (let place = first; place < last; place += 1) {
      let element = this.#elements.get(place);
      if (element === undefined) {
        element = makeRow(place);
        this.#elements.set(place, element);
        this.body.append(element);
      }
      this.#fill(element, this.#rowAt(place));
      const top = `${place * height + shift}px`;
      if (element.style.top !== top) element.style.top = top;
      setAttribute(element, "aria-posinset", String(place + 1));
      setAttribute(element, "aria-setsize", String(this.#matching));
      setAttribute(element, "aria-selected", String(place === this.#active?.place));
    }
    const active = this.#active !== null ? this.#elements.get(this.#active.place) : undefined;
    if (active) setAttribute(this.list, "aria-activedescendant", active.id);
    else this.list.removeAttribute("aria-activedescendant");
  }

  #fill(element, item) {
    if (element.item === item && element.live === this.#live) return;
    Object.assign(element, { item, live: this.#live });
    const [chip, id, text, took, tries] = element.children;
    if (item === undefined) {
      setAttribute(element, "data-state", "none");
      setText(chip, "…");
      setAttribute(chip, "data-state", "none");
      this.#name(id, this.#live ? "" : "not loaded");
      for (const one of [text, took, tries]) setText(one, "");
      return;
    }
    element.id = `row-${item.index}`;
    setAttribute(element, "data-index", String(item.index));
    setAttribute(element, "data-state", shade(item.status, this.#live));
    setAttribute(chip, "data-state", shade(item.status, this.#live));
    setText(chip, statusName(item.status, this.#live));
    this.#name(id, nameOf(item));
    setAttribute(id, "title", item.label === undefined ? asText(item.id) : `${item.label} (${asText(item.id)})`);
    this.#fillText(text, item);
    setText(took, item.elapsed === undefined ? "" : duration(item.elapsed));
    setText(tries, item.attempts ? String(item.attempts) : "");
  }

  #name(element, name) {
    inTwo(name).forEach((part, at) => setText(element.children[at], part));
  }

  #fillText(element, item) {
    const source = item.picture ? `jobs/${this.#job.number}/items/${item.index}/picture?small` : null;
    const shown = element.querySelector("img")?.getAttribute("src") ?? null;
    if (source === shown) {
      setText(source === null ? element : element.lastChild, textOf(item));
      return;
    }
    if (source === null || !this.#live) {
      element.replaceChildren(textOf(item)); // also where the text is that of the item whose picture was here
      return;
    }
    const picture = make("img", { src: source, alt: "", loading: "lazy" });
    picture.addEventListener("error", () => picture.remove());
    element.replaceChildren(picture, make("span", { text: textOf(item) }));
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
      if (this.item !== null) this.open(this.#active.place, this.item);
    }
  }

  // Reached by keyboard: there is an item to begin with. A click chooses its own.
  #focused() {
    if (this.#active === null && this.list.matches(":focus-visible")) this.move(0);
  }

  // Go so many items on. `onRow` is called once it is known which item that is.
  move(steps) {
    if (!this.#matching) return;
    const [seen] = this.#seen(0); // the first that is seen, where none was chosen
    const place = this.#active === null && Number.isFinite(steps) ? seen : (this.#active?.place ?? seen) + steps;
    this.#activate(Math.min(this.#matching - 1, Math.max(0, place)));
  }

  // The item that the keyboard is at; null while that is not known.
  get item() {
    const row = this.#active === null ? undefined : this.#rowAt(this.#active.place);
    return row !== undefined && row.index === this.#active.index ? row : null;
  }

  // Another item was opened by its address, or from elsewhere.
  at(index) {
    const place = this.#rows.findIndex((row) => row.index === index);
    this.#active = place < 0 ? null : { place: place + this.#offset, index };
    this.#paint();
  }

  #activate(place) {
    this.#active = { place, index: this.#rowAt(place)?.index ?? null };
    const height = this.#rowHeight;
    const scale = this.#scale;
    const [top, seen] = [place * height, this.list.scrollTop * scale];
    if (top < seen) this.list.scrollTop = top / scale;
    else if (top + height > seen + this.list.clientHeight) this.list.scrollTop = (top + height - this.list.clientHeight) / scale;
    this.#scrolled();
  }

  open(place, item) {
    this.#active = { place, index: item.index };
    this.#paint();
    this.list.focus(); // where the focus returns to
    this.onOpen(this.#job, item);
  }
}

function makeRow(place) {
  return make("div", {
    class_: "row", role: "option", id: `place-${place}`, "data-place": place,
    children: ["chip", "id", "text", "took", "tries"].map((name) => make("span", { class_: name, children: name === "id" ? [make("span"), make("span")] : [] })),
  });
}
