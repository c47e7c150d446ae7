// The failed items of a job in groups: errors of one type, from one line. Above the list of items, where that lists them.

import { act, askForFailures, Question } from "../asking.js";
import { copyButton } from "../copy.js";
import { byId, make, say, setAttribute, show } from "../dom.js";
import { count, plural } from "../format.js";

const PAUSE = 1000; // milliseconds between two questions

export class FailuresView {
  #job = null;
  #groups = new Question(() => PAUSE);
  #listed = undefined; // the key of the group whose items are listed

  // `onShow` lists the items of a group; of null, all failed ones.
  constructor(onShow) {
    this.onShow = onShow;
    this.list = byId("failure-groups");
  }

  render(job, live, canAct, items) {
    const failed = items.listsFailed ? (job?.state.failed ?? 0) : 0;
    this.#listed = items.group;
    show(this.list, failed > 0);
    if (job !== this.#job) {
      this.#job = job;
      this.#groups.drop();
      this.list.replaceChildren();
    }
    this.#showListed();
    // Failed items run again only once the job has ended.
    this.list.toggleAttribute("data-over", canAct && live && job?.state.status === "completed_with_errors");
    if (failed && live) this.#ask(job, failed);
  }

  #ask({ number, state }, failed) {
    this.#groups.ask(
      `${failed} ${state.retries}`,
      () => askForFailures(number),
      (answer) => {
        this.#show(answer.groups, answer.more);
        this.#showListed();
        if (answer.failed !== failed) this.#groups.again(); // the program may answer with what it had a moment ago
      },
    );
  }

  #show(groups, more) {
    const focused = document.activeElement?.dataset?.key;
    this.list.replaceChildren(...groups.map((group) => this.#row(group)));
    if (more) this.list.append(make("li", { class_: "quiet", text: `and ${plural(more, "more group")}` }));
    if (focused !== undefined) this.list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #showListed() {
    for (const row of this.list.querySelectorAll("[data-group]")) setAttribute(row.querySelector("[data-key]"), "aria-pressed", String(row.dataset.group === this.#listed));
  }

  async #retry(group, button) {
    button.disabled = true;
    const done = await act(this.#job, "retry-failed", { group: group.key });
    button.disabled = false;
    if (done) say(`${plural(group.count, "item")} run again.`);
  }

  #row(group) {
    const place = group.place === null ? "" : ` at ${group.place}`;
    const name = `${group.errorType}${place}`;
    const list = make("button", { type: "button", text: "List these", "data-key": `${group.key} list`, "aria-label": `List the items that failed with ${name}` });
    list.addEventListener("click", () => this.onShow(group.key === this.#listed ? null : group));
    const retry = make("button", { type: "button", class_: "retry primary", text: "Retry these", "aria-label": `Retry the items that failed with ${name}` });
    retry.addEventListener("click", () => this.#retry(group, retry));
    const text = group.message === group.errorType ? "" : group.message;
    return make("li", {
      "data-group": group.key,
      children: [
        make("b", { class_: "times", text: `${count(group.count)} ×` }),
        make("div", {
          class_: "what",
          children: [
            make("p", { children: [make("b", { text: group.errorType }), make("span", { class_: "quiet", text: `${place}, first: ${group.first}` })] }),
            make("p", { class_: "message", text, title: text }),
          ],
        }),
        make("div", { class_: "actions", children: [retry, list, copyButton("Copy", () => `${name}: ${group.message}`, `Copy the error ${name}`)] }),
      ],
    });
  }
}
