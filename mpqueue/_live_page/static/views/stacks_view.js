// Where every worker is right now: stacks, asked for when the button is pressed.

import { askForStacks } from "../asking.js";
import { byId, make, say, setText } from "../dom.js";
import { moment, plural } from "../format.js";

const UNKNOWN = "Not known: the worker is stopped or ending, it did not answer, or the system does not tell whether it would.";

export class StacksView {
  // `describe` says in words what a worker is at.
  constructor(describe) {
    this.describe = describe;
    this.dialog = byId("stacks");
    byId("show-stacks").addEventListener("click", () => this.#open());
    byId("stacks-again").addEventListener("click", () => this.#ask());
    byId("stacks-close").addEventListener("click", () => this.dialog.close());
  }

  #open() {
    byId("stacks-body").replaceChildren();
    this.dialog.showModal();
    this.#ask();
  }

  async #ask() {
    setText(byId("stacks-note"), "Asking the workers…");
    const told = await askForStacks();
    if (told.error !== undefined) {
      setText(byId("stacks-note"), `The workers can't be asked: ${told.error}`);
      return;
    }
    setText(byId("stacks-note"), `At ${moment(Date.now())}, the innermost call first.`);
    byId("stacks-body").replaceChildren(...told.flatMap((one) => this.#parts(one)));
    say(`${plural(told.length, "stack")}.`);
  }

  #parts({ worker, stack }) {
    const name = `Worker ${worker}`;
    const heading = make("h3", { children: [make("b", { text: name }), ` ${this.describe(worker)}`] });
    if (!stack) return [heading, make("p", { class_: "note", text: stack === null ? UNKNOWN : "It runs nothing of yours." })];
    return [heading, make("pre", { text: stack, tabindex: 0, role: "region", "aria-label": `Stack of ${name}` })];
  }
}
