// Pictures of numbers over time, drawn on a canvas, each with its words for screen readers.

import { setAttribute } from "./dom.js";
import { moment, rate } from "./format.js";

// The canvas with as many pixels as the screen has; returns its context and its size.
export function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}

// Items per second over the whole run: completed ones, and failed tries on top.
export function drawThroughput(canvas, { since, every, completed, failed }) {
  const { context, width, height, ratio } = prepared(canvas);
  const most = Math.max(...completed.map((value, at) => value + failed[at]));
  const step = width / completed.length;
  const bar = (at, from, to, fill) => {
    context.fillStyle = fill;
    const [top, bottom] = [height - (to / most) * height, height - (from / most) * height];
    context.fillRect(at * step, top, Math.max(step - ratio * 0.5, ratio * 0.5), bottom - top);
  };
  const [good, bad] = [colour("--completed-bar"), colour("--failed-bar")];
  completed.forEach((value, at) => {
    bar(at, 0, value, good);
    if (failed[at]) bar(at, value, value + failed[at], bad);
  });
  const last = completed.findLast((value) => value > 0) ?? 0;
  setAttribute(canvas, "aria-label", `Items per second over the whole run: at most ${rate(most)}, last ${rate(last)}`);
}

// What the chart says at that place.
export function throughputAt(canvas, x, { since, every, completed, failed }) {
  const at = Math.min(completed.length - 1, Math.max(0, Math.floor((x / canvas.clientWidth) * completed.length)));
  const tries = failed[at] ? `, and ${rate(failed[at])} failed tries/s` : "";
  return `${moment(since + 1000 * every * at)}: ${rate(completed[at])} items/s${tries}`;
}
