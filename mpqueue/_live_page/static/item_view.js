// One item, with all that is known of it. Beside the list where there is room, over it on a phone.

import { byId, make, setAttribute, setText, show } from "./dom.js";
import { asText, duration, plural, statusName } from "./format.js";
import { nameOf, textOf } from "./item_list.js";

export class ItemView {
  #job = null;
  #index = null;
  #shown = null; // the item of the list that the details belong to
  #asked = 0;

  constructor(step) {
    this.dialog = byId("item");
    this.heading = byId("item-heading");
    byId("item-close").addEventListener("click", () => this.dialog.close());
    byId("item-previous").addEventListener("click", () => this.#step(step, -1));
    byId("item-next").addEventListener("click", () => this.#step(step, 1));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.dialog.matches(":modal")) {
        event.preventDefault();
        this.dialog.close();
      }
    });
    this.dialog.addEventListener("close", () => {
      this.#index = null;
      if (!byId("list").hidden) byId("list").focus();
    });
  }

  #step(step, by) {
    const index = step(by);
    if (index !== null) this.#look(this.#job, index);
  }

  open(job, index) {
    this.#look(job, index);
    if (!this.dialog.open) {
      if (matchMedia("(max-width: 820px)").matches) this.dialog.showModal();
      else this.dialog.show();
    }
    this.heading.focus();
  }

  #look(job, index) {
    this.#job = job;
    this.#index = index;
    this.#shown = null;
    byId("item-body").scrollTop = 0;
    this.render(job);
  }

  render(job) {
    if (this.#index === null) return;
    if (job === null || job.number !== this.#job.number) {
      if (this.dialog.open) this.dialog.close();
      return;
    }
    this.#job = job; // after a reconnection it is another object
    const item = job.items[this.#index];
    if (item === undefined || item === this.#shown) return;
    this.#shown = item;
    setText(this.heading, `Item ${nameOf(item)}`);
    this.#setStatus(item.status);
    this.#fetch(item);
  }

  #setStatus(status) {
    setAttribute(byId("item-status"), "data-state", status);
    setText(byId("item-status"), statusName(status));
  }

  async #fetch(item) {
    const asked = (this.#asked += 1);
    const path = `jobs/${this.#job.number}/items/${item.index}`;
    let details = null;
    try {
      const answer = await fetch(path);
      if (answer.ok) details = await answer.json();
    } catch {
      // What the list knows is shown instead.
    }
    if (asked !== this.#asked) return; // it has changed again, or is another one
    const body = byId("item-body");
    const opened = new Set([...body.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    body.replaceChildren(...(details ? this.#parts(details, path) : this.#remains(item)));
    for (const one of body.querySelectorAll("details")) if (opened.has(one.dataset.name)) one.open = true;
  }

  #remains(item) {
    const text = textOf(item);
    return [
      make("p", { class_: "note", text: "The program can't be asked any more. This is what the list knew:" }),
      ...(text ? [make("pre", { text })] : []),
    ];
  }

  #parts(details, path) {
    const facts = [["Attempts", String(details.attempts)]];
    if (asText(details.id) !== details.label) facts.unshift(["Id", asText(details.id)]);
    if (details.elapsed) facts.push(["Took", duration(details.elapsed)]);
    if (details.status === "processing" && details.fraction) facts.push(["Done", `${Math.round(100 * details.fraction)} %`]);
    if (details.resultType) facts.push(["Result", details.resultType]);
    const parts = [
      make("dl", {
        class_: "facts",
        children: facts.map(([name, value]) => make("div", { children: [make("dt", { text: name }), make("dd", { text: value })] })),
      }),
    ];
    const section = (name, ...children) => parts.push(make("h3", { text: name }), ...children);
    const text = (name, value, class_) => value && section(name, make("pre", { text: value, class_, tabindex: 0, "aria-label": name, role: "region" }));
    if (details.picture) {
      const picture = make("img", { src: `${path}/picture`, alt: `Picture in the result of item ${details.label}` });
      picture.addEventListener("error", () => picture.replaceWith(make("p", { class_: "quiet", text: "The picture could not be shown." })));
      section("Picture", picture);
    }
    text("Error", details.error, "bad");
    text("Traceback", details.traceback);
    text("Result", details.result);
    if (details.history.length) section("Failed tries", make("ol", { children: details.history.map(asTry) }));
    text("Item", details.payload);
    text("stdout", details.stdout);
    text("stderr", details.stderr);
    return parts;
  }
}

function asTry({ error, duration: seconds, pid }, at) {
  const where = pid === null ? "" : `, pid ${pid}`;
  return make("li", {
    children: [
      make("span", { text: `${at + 1}. ${error}` }),
      make("span", { class_: "quiet", text: `${duration(seconds)}${where}` }),
    ],
  });
}
