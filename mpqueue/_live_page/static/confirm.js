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
  byId("confirm-kill").checked = false;
  answer?.(null);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => (answer = resolve));
}

byId("confirm").addEventListener("close", () => {
  if (byId("confirm").open) return; // it was asked once more meanwhile
  answer?.(byId("confirm").returnValue === "yes" ? { kill: byId("confirm-kill").checked } : null);
  answer = null;
});
