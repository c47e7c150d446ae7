// A question before something that can't be undone, or that a single key does.

import { byId, setText, show } from "./dom.js";

let answer = null;

// Resolves to {kill} where the user agrees, else to null. `check`: the text of the box that decides about `kill`, if any.
export function confirm({ heading, text, check, no, yes, danger = true }) {
  const dialog = byId("confirm");
  setText(byId("confirm-heading"), heading);
  setText(byId("confirm-text"), text);
  show(byId("confirm-box"), check !== undefined);
  setText(byId("confirm-check"), check ?? "");
  setText(byId("confirm-no"), no);
  setText(byId("confirm-yes"), yes);
  byId("confirm-yes").className = danger ? "danger solid" : "primary";
  settle(); // it may have been closed just now
  byId("confirm-kill").checked = false;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => (answer = resolve));
}

// "no" as long as it is open.
function settle() {
  answer?.(byId("confirm").returnValue === "yes" ? { kill: byId("confirm-kill").checked } : null);
  answer = null;
}

byId("confirm").addEventListener("close", () => byId("confirm").open || settle()); // open: it was asked once more meanwhile
