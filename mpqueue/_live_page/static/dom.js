// Small ways to touch the document. Only `place` makes anything from markup.

export const byId = (id) => document.getElementById(id);

// Set only what has changed: what is left alone keeps its focus, its selection and its place, and costs no layout.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

// Show what the program has drawn: markup in which it has escaped all texts.
export function place(element, markup) {
  element.innerHTML = markup;
}

export function make(tag, { text, children, ...attributes } = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name.replace("class_", "class"), value);
  }
  if (text !== undefined) element.textContent = text;
  if (children) element.append(...children);
  return element;
}

// What went wrong, above all else; "" once something went well.
export function showError(text) {
  setText(byId("banner"), text);
  byId("banner").classList.add("error");
  show(byId("banner"), text !== "");
}

// Said aloud by screen readers, when they have a moment.
export function say(text) {
  const said = byId("said");
  said.textContent = "";
  requestAnimationFrame(() => (said.textContent = text));
}

// A bar that `fill` fills.
export const makeBar = () => make("span", { class_: "bar", children: ["completed", "failed", "processing"].map((name) => make("span", { class_: name })) });

// How a bar is filled, from a job's state. What ran is not shown once it is unknown whether it does.
export function fill(bar, state, live = true) {
  const [completed, failed, processing] = bar.children;
  const known = state.soFar === undefined; // else it would be the part of what has come so far
  const total = known ? state.total || 1 : Infinity;
  const width = (span, n) => {
    const value = `${((100 * n) / total).toFixed(2)}%`;
    if (span.style.width !== value) span.style.width = value;
  };
  bar.toggleAttribute("data-open", !known);
  width(completed, state.completed);
  width(failed, state.failed);
  width(processing, live && known ? Math.min(state.counts.processing, total - state.completed - state.failed) : 0);
}
