// One item, with all that is known of it; while it runs, what it is at. Beside the list, over it on a phone.

import { linkTo } from "../address.js";
import { act, askForItem, Question } from "../asking.js";
import { confirm } from "../confirm.js";
import { copyButton } from "../copy.js";
import { byId, make, setAttribute, setText, show } from "../dom.js";
import { asText, bytes, clock, duration, moment, plural, shade, statusName } from "../format.js";

const EVERY = 700; // milliseconds between two questions for an item that runs
const PAUSE = 300; // the same for one whose job goes on

export class ItemView {
  #job = null;
  #index = null;
  #details = null; // the last answer
  #question = new Question(() => PAUSE, () => this.#index !== null && this.render(this.#job, this.#live, 0));
  #live = false;
  #due = 0; // when it is asked for again, while it runs
  #used = null; // {pid, at, cpu} of its worker at the last answer

  // `step` moves on in the list; `onClose` is called when the user closes it.
  constructor(step, onClose) {
    this.retry = byId("item-retry");
    this.cancel = byId("item-cancel");
    this.retry.addEventListener("click", () => act(this.#job, "retry-failed", { items: [this.#index] }));
    this.cancel.addEventListener("click", () => this.#askBeforeCancel());
    this.dialog = byId("item");
    this.heading = byId("item-heading");
    this.onClose = onClose;
    byId("item-close").addEventListener("click", () => this.#leave());
    byId("item-previous").addEventListener("click", () => step(-1));
    byId("item-next").addEventListener("click", () => step(1));
    byId("item-head-copy").append(copyButton("Copy link", () => linkTo(this.#job.id, this.#details?.id ?? this.#index)));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.dialog.matches(":modal")) {
        event.preventDefault();
        this.#leave();
      }
    });
    // By Escape, or a phone's way back. Its "close" comes later than the next item may be opened, and tells nothing.
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#leave();
    });
  }

  get index() {
    return this.#index;
  }

  // `quietly`: the focus stays where it is.
  open(job, index, quietly = false) {
    if (this.#index !== index || this.#job !== job) {
      this.#job = job;
      this.#index = index;
      this.#details = null;
      this.#question.drop();
      byId("item-body").replaceChildren();
      byId("item-body").scrollTop = 0;
      setText(this.heading, `Item ${job.labels.get(index) ?? index}`);
      setText(byId("item-status"), "");
      this.render(job, this.#live, 0);
    }
    if (!this.dialog.open) {
      if (matchMedia("(max-width: 820px)").matches) this.dialog.showModal();
      else this.dialog.show();
    }
    if (!quietly) this.heading.focus();
  }

  close() {
    this.#index = null;
    this.#question.drop();
    if (this.dialog.open) this.dialog.close();
  }

  // The user closes it.
  #leave() {
    this.close();
    if (!byId("list").hidden) byId("list").focus();
    this.onClose();
  }

  render(job, live, now, canAct = this.canAct) {
    this.canAct = canAct;
    if (now) this.now = now;
    const changed = live !== this.#live;
    this.#live = live;
    if (this.#index === null) return;
    if (job === null || job.number !== this.#job.number) {
      this.close();
      return;
    }
    this.#job = job;
    if (changed || !live) this.#showStatus();
    this.#showButtons();
    if (live) this.#ask();
    if (!live && this.#details === null) this.#showNothing();
    if (live && now && this.#details?.live) this.#tick();
  }

  #ask() {
    if (performance.now() > this.#due) {
      this.#due = Infinity;
      this.#question.again();
    }
    this.#question.ask(
      this.#job.latest.version,
      () => askForItem(this.#job.number, this.#index),
      (details) => {
        if (details) this.#take(details);
        else if (this.#details === null) this.#showNothing();
      },
    );
  }

  #take(details) {
    const before = this.#details;
    this.#details = details;
    this.#due = details.status === "processing" ? performance.now() + EVERY : Infinity;
    this.#job.labels.set(details.index, details.label);
    setText(this.heading, `Item ${details.label}`);
    this.#showStatus();
    const { live: now, ...rest } = details;
    const { live: then, ...old } = before ?? {};
    const same = before !== null && JSON.stringify(rest) === JSON.stringify(old) && !now === !then;
    if (same) {
      if (now) this.#showLive(now);
      return; // what is selected, or scrolled, stays
    }
    const body = byId("item-body");
    const [top, path] = [body.scrollTop, `jobs/${this.#job.number}/items/${details.index}`];
    body.replaceChildren(...this.#parts(details, path));
    body.scrollTop = top;
    if (now) this.#showLive(now);
  }

  #showStatus() {
    const status = this.#details?.status ?? "";
    setAttribute(byId("item-status"), "data-state", shade(status, this.#live));
    setText(byId("item-status"), status && statusName(status, this.#live));
    const panel = byId("live-item");
    const title = this.#live ? "While it runs" : "When it was last seen";
    if (panel) {
      setText(panel.querySelector("h3"), title);
      setAttribute(panel, "aria-label", title);
    }
  }

  // A failed item runs again once its job has ended; one that has not ended is cancelled while its job goes on.
  #showButtons() {
    const { state } = this.#job;
    const status = this.#details?.status;
    const over = state.status === "completed_with_errors";
    const hadFocus = document.activeElement === this.retry || document.activeElement === this.cancel;
    show(this.retry, this.canAct && status === "failed" && over);
    show(this.cancel, this.canAct && ["pending", "processing", "retry"].includes(status) && !state.finishedAt && !state.cancelled);
    this.retry.disabled = this.cancel.disabled = !this.#live;
    setText(this.cancel, status === "processing" ? "Cancel…" : "Cancel");
    if (hadFocus && document.activeElement?.hidden !== false) this.heading.focus();
  }

  async #askBeforeCancel() {
    const { status, label } = this.#details;
    let agreed = {};
    if (status === "processing") {
      agreed = await confirm({
        heading: `Cancel item “${label}”?`,
        text: "It runs now. It may finish, but is not tried again.",
        check: "End it now, by ending its worker; what else was sent there runs again",
        no: "Let it run",
        yes: "Cancel the item",
      });
    }
    if (agreed !== null) act(this.#job, "cancel", { ...agreed, items: [this.#index] });
  }

  #showNothing() {
    const text = this.#live ? "This item is not there any more." : "The program can't be asked any more.";
    byId("item-body").replaceChildren(make("p", { class_: "note", text }));
  }

  // -- while it runs ------------------------------------------------------------------------------------------

  #showLive({ worker, pid, since, fraction, workerCpu, memory, stdout, stderr }) {
    const panel = byId("live-item");
    const details = this.#details;
    const share = this.#shareOf(pid, workerCpu);
    const facts = [
      ["Try", `${details.attempts + 1} of at most ${details.mostAttempts}`],
      ["Worker", pid === null ? String(worker) : `${worker} (pid ${pid})`],
      ["Started", moment(since)],
      ["For", clock(Math.max(0, this.now - since))],
      ["CPU", share === null ? "not known" : `${Math.round(100 * share)}%`],
      ["Memory", memory === undefined ? "not known" : bytes(memory)],
    ];
    const bar = panel.querySelector(".bar");
    show(bar, fraction > 0);
    bar.firstChild.style.width = `${(100 * fraction).toFixed(1)}%`;
    setAttribute(bar, "aria-valuenow", String(Math.round(100 * fraction)));
    setText(panel.querySelector(".share"), fraction > 0 ? `${Math.round(100 * fraction)}% done` : "It has not reported how far it is.");
    const list = panel.querySelector("dl");
    if (list.children.length !== facts.length) list.replaceChildren(...facts.map(asFact));
    facts.forEach(([, value], at) => setText(list.children[at].lastChild, value));
    const tail = panel.querySelector("pre");
    const written = [stdout, stderr].filter(Boolean).join("\n");
    const atEnd = tail.scrollTop + tail.clientHeight >= tail.scrollHeight - 4;
    show(tail, written !== "");
    setText(tail, written);
    if (atEnd) tail.scrollTop = tail.scrollHeight;
    const why = details.keepsOutput ? "It has written nothing yet." : "Its output is not kept: create_job(..., capture_output=True) keeps it.";
    show(panel.querySelector(".note"), written === "");
    setText(panel.querySelector(".note"), why);
  }

  // The part of a CPU that its worker used between the last two answers; null until there are two.
  #shareOf(pid, cpu) {
    const [before, at] = [this.#used, performance.now()];
    this.#used = { pid, at, cpu };
    return before?.pid === pid && cpu !== undefined ? Math.max(0, (1000 * (cpu - before.cpu)) / (at - before.at)) : null;
  }

  #tick() {
    const list = byId("live-item")?.querySelector("dl");
    if (list?.children.length) setText(list.children[3].lastChild, clock(Math.max(0, this.now - this.#details.live.since)));
  }

  #livePanel() {
    return make("section", {
      id: "live-item", class_: "live", "aria-label": "While it runs",
      children: [
        make("h3", { text: "While it runs" }),
        make("div", { class_: "bar", role: "progressbar", "aria-label": "How far it is", "aria-valuemin": 0, "aria-valuemax": 100, children: [make("span", { class_: "processing" })] }),
        make("p", { class_: "share quiet" }),
        make("dl", { class_: "facts" }),
        make("pre", { tabindex: 0, role: "region", "aria-label": "The end of its output" }),
        make("p", { class_: "note" }),
      ],
    });
  }

  // -- all of it ----------------------------------------------------------------------------------------------

  #parts(details, path) {
    const running = details.live !== undefined;
    const facts = [["Tries", String(details.attempts)]];
    if (asText(details.id) !== details.label) facts.unshift(["Id", asText(details.id)]);
    if (details.elapsed) facts.push([running ? "Last try took" : "Took", duration(details.elapsed)]);
    if (details.cpu && !running) facts.push(["CPU", duration(details.cpu)]);
    if (details.peakMemory && !running) facts.push(["Peak memory", bytes(details.peakMemory)]);
    if (details.resultType) facts.push(["Result", details.resultType]);
    const parts = [make("dl", { class_: "facts", children: facts.map(asFact) })];
    if (running) parts.push(this.#livePanel());
    const section = (name, ...children) => parts.push(make("h3", { text: name }), ...children);
    const text = (name, value, class_) => {
      if (!value) return;
      const copy = copyButton("Copy", () => value, `Copy ${name.toLowerCase()}`);
      parts.push(make("div", { class_: "with-copy", children: [make("h3", { text: name }), copy] }));
      parts.push(make("pre", { text: value, class_, tabindex: 0, "aria-label": name, role: "region" }));
    };
    if (details.picture) {
      const picture = make("img", { src: `${path}/picture`, alt: `Picture in the result of item ${details.label}` });
      picture.addEventListener("error", () => picture.replaceWith(make("p", { class_: "quiet", text: "The picture could not be shown." })));
      section("Picture", picture);
    }
    text("Error", details.error, "bad");
    text("Traceback", details.traceback);
    text("Result", details.result);
    if (details.history.length) section(plural(details.history.length, "failed try", "failed tries"), make("ol", { children: details.history.map(asTry) }));
    text("Item", details.payload);
    text("stdout", details.stdout);
    text("stderr", details.stderr);
    return parts;
  }
}

const asFact = ([name, value]) => make("div", { children: [make("dt", { text: name }), make("dd", { text: value })] });

function asTry({ error, duration: seconds, pid }, at) {
  const where = pid === null ? "" : `, pid ${pid}`;
  return make("li", {
    children: [
      make("span", { text: `${at + 1}. ${error}` }),
      make("span", { class_: "quiet", text: `${duration(seconds)}${where}` }),
    ],
  });
}
