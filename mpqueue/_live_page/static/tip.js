// A few words beside the pointer.

import { make } from "./dom.js";

const tip = make("div", { id: "tip", role: "tooltip" });
tip.hidden = true;
document.body.append(tip);

// Over that element, show what `words` says of the place of the pointer in it; nothing where it says nothing.
export function tipOver(element, words) {
  element.addEventListener("pointermove", (event) => {
    const text = words(event.offsetX, event.offsetY);
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const [x, y] = [event.clientX + 12, event.clientY + 16];
    tip.style.left = `${Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(y, innerHeight - tip.offsetHeight - 8)}px`;
  });
  element.addEventListener("pointerleave", () => (tip.hidden = true));
}
