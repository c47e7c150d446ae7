// Buttons that copy a text.

import { make, say, setText } from "./dom.js";

const SHOWN = 1500; // milliseconds for which the button says that it was done

// `text` is asked for when the button is pressed; `label` says what is copied, where the name alone does not.
export function copyButton(name, text, label = undefined) {
  const button = make("button", { type: "button", class_: "copy", text: name, "aria-label": label });
  button.addEventListener("click", async () => {
    const done = await copy(text());
    setText(button, done ? "Copied" : "Not copied");
    say(done ? "Copied." : "The browser did not let the page copy it.");
    setTimeout(() => setText(button, name), SHOWN);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // where the page came by http from another machine, there is none
    return true;
  } catch {
    return copyFromField(text);
  }
}

function copyFromField(text) {
  const before = document.activeElement;
  const field = make("textarea", { class_: "hidden", "aria-hidden": "true" });
  field.value = text;
  (document.querySelector("dialog:modal") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}
