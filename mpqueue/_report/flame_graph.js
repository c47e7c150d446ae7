"use strict";
// The flame graph of a report's page: drawn from #flame-data, a box for each line, with zoom, search and keys.
(() => {
  const byId = (id) => document.getElementById(id);
  const file = byId("flame-data").textContent; // as speedscope reads it
  const { shared, profiles } = JSON.parse(file);
  const flame = byId("flame");
  const HEIGHT = 1.4; // rem, of a row
  const NARROW = 0.03; // of the width, below which a box has no room for text
  const LEAST = 0.0005; // of the width, below which a box is not drawn

  const functions = shared.frames.map(({ name, file = "" }) => `${name.replace(/:\d+\)$/, "")} ${file}`); // of each line

  let boxes = []; // of the view at hand
  let whole = 0; // its seconds
  let alone = null; // the box that is seen alone; null: all
  let current = null; // the box that has the keyboard
  let sought = "";

  const time = (s) => (s < 0.9995 ? `${Math.round(s * 1000)} ms` : s < 100 ? `${s.toFixed(2)} s` : `${Math.round(s)} s`);
  const share = (s) => `${((100 * s) / whole).toFixed(1)}%`;

  // Calls that repeat one after another, as those of a function that calls itself, are one: the innermost.
  function withoutRepeats(stack) {
    const kept = [];
    for (const frame of stack) {
      kept.push(frame);
      for (let n = 1; 2 * n <= kept.length; n += 1) {
        const last = kept.slice(-n);
        if (!last.every((one, at) => functions[one] === functions[kept.at(at - 2 * n)])) continue;
        kept.splice(-2 * n, n);
        break;
      }
    }
    return kept;
  }

  function load(at) {
    const { samples, weights, endValue } = profiles[at];
    [boxes, whole, alone] = [[], endValue, null];
    const top = [];
    samples.forEach((stack, at) => {
      let [above, siblings] = [null, top];
      for (const frame of withoutRepeats(stack)) {
        let box = siblings.find((one) => one.frame === frame);
        if (box === undefined) siblings.push((box = { frame, spent: 0, above, siblings, below: [], element: null }));
        box.spent += weights[at];
        [above, siblings] = [box, box.below];
      }
    });
    const place = (siblings, start, depth) => {
      for (const box of siblings.sort((one, other) => other.spent - one.spent)) {
        boxes.push(Object.assign(box, { start, depth }));
        place(box.below, start, depth + 1);
        start += box.spent;
      }
    };
    place(top, 0, 0);
    current = boxes[0];
    draw();
  }

  // What a box stands for: the function with its line, the place of that, and its text.
  function told({ frame }) {
    const { name, file, line, source } = shared.frames[frame];
    return { name, place: file ? `${file}:${line}` : "C code", source };
  }

  // The part of the width that a box has now, as [left, width]; null where it is not to be seen.
  function extentOf(box) {
    const [from, length] = alone === null ? [0, whole] : [alone.start, alone.spent];
    const left = Math.max(box.start, from);
    const width = (Math.min(box.start + box.spent, from + length) - left) / length;
    return width < LEAST ? null : [(left - from) / length, width];
  }

  function draw() {
    let depth = 0;
    const shown = [];
    for (const box of boxes) {
      box.element = null;
      const extent = extentOf(box);
      if (extent === null) continue;
      const { name, place } = told(box);
      const element = document.createElement("div");
      element.setAttribute("role", "treeitem");
      element.setAttribute("aria-level", box.depth + 1);
      element.setAttribute("aria-selected", box === alone);
      element.setAttribute("aria-label", `${name}, ${share(box.spent)}, ${time(box.spent)}`);
      element.tabIndex = -1;
      element.textContent = name;
      element.title = `${name}\n${place}\n${time(box.spent)}, ${share(box.spent)}`;
      element.classList.toggle("narrow", extent[1] < NARROW);
      element.style.left = `${100 * extent[0]}%`;
      element.style.width = `${100 * extent[1]}%`;
      element.style.top = `${HEIGHT * box.depth}rem`;
      element.style.background = sought === "" ? `var(--flame-${hue(place)})` : "";
      element.classList.toggle("found", sought !== "" && isFound(box));
      element.addEventListener("click", () => show(box));
      element.addEventListener("focus", () => tell(box));
      element.addEventListener("mouseenter", () => tell(box));
      box.element = element;
      shown.push(element);
      depth = Math.max(depth, box.depth + 1);
    }
    flame.style.height = `${HEIGHT * depth}rem`;
    flame.classList.toggle("searching", sought !== "");
    flame.replaceChildren(...shown);
    if (current === null || current.element === null) current = alone ?? boxes[0];
    if (current?.element) current.element.tabIndex = 0;
    byId("flame-whole").disabled = alone === null;
    count();
  }

  const hue = (place) => [...place.replace(/:\d+$/, "")].reduce((sum, letter) => (31 * sum + letter.codePointAt(0)) % 9973, 7) % 6;
  const isFound = (box) => Object.values(told(box)).some((text) => text.toLowerCase().includes(sought));

  // What of the time was in what is found: a box below one that is found counts once.
  function count() {
    let found = 0;
    for (const box of boxes) {
      let above = box.above;
      while (above !== null && !isFound(above)) above = above.above;
      if (above === null && isFound(box)) found += box.spent;
    }
    byId("flame-found").textContent = sought === "" ? "" : `${share(found)} of the time`;
  }

  function tell(box) {
    const { name, place, source } = told(box);
    const own = box.spent - box.below.reduce((sum, one) => sum + one.spent, 0);
    const itself = box.below.length ? `, ${time(Math.max(0, own))} of it in the line itself` : "";
    byId("flame-detail").textContent = `${name}: ${time(box.spent)}, ${share(box.spent)}${itself}. ${place}${source && `: ${source}`}`;
  }

  function show(box) {
    current = box;
    alone = box === alone ? null : box;
    draw();
    current.element?.focus();
  }

  function go(box) {
    if (!box?.element) return;
    if (current.element) current.element.tabIndex = -1;
    current = box;
    box.element.tabIndex = 0;
    box.element.focus();
  }

  const KEYS = {
    ArrowDown: () => go(current.below[0]),
    ArrowUp: () => go(current.above),
    ArrowLeft: () => go(current.siblings[current.siblings.indexOf(current) - 1]),
    ArrowRight: () => go(current.siblings[current.siblings.indexOf(current) + 1]),
    Home: () => go(alone ?? boxes[0]),
    Enter: () => show(current),
    " ": () => show(current),
    Escape: () => alone !== null && show(alone),
  };

  flame.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select")) return;
    event.preventDefault();
    byId("flame-search").focus();
  });
  byId("flame-search").addEventListener("input", (event) => {
    sought = event.target.value.trim().toLowerCase();
    draw();
  });
  byId("flame-whole").addEventListener("click", () => {
    alone = null;
    draw();
    current.element?.focus();
  });
  byId("flame-save").addEventListener("click", () => {
    const href = URL.createObjectURL(new Blob([file], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href, download: "profile.speedscope.json" }).click();
  });
  byId("flame-view").append(...profiles.map(({ name }, at) => new Option(name, at)));
  byId("flame-view").addEventListener("change", (event) => load(Number(event.target.value)));
  byId("flame-tools").hidden = byId("flame-help").hidden = false;
  load(0);
})();
