// Numbers, times and names, as people read them.

const whole = new Intl.NumberFormat("en");
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (number) => whole.format(number);

export function percent(done, total) {
  if (!total) return 100;
  const value = (100 * done) / total;
  return done < total ? Math.min(99, Math.floor(value)) : 100; // 100% only when it is over
}

// How far a job is, as "40%"; "" while its total is not known.
export const progress = ({ done, total, soFar }) => (soFar ? "" : `${percent(done, total)}%`);

// The number of a job's items that there are so far. A stage gets its items from the one before it.
export const listed = ({ counts }) => Object.values(counts).reduce((sum, some) => sum + some, 0);

// "3 of 10", of the items of a job, or "3 of 10 inputs"; "3 of 10 so far" while its total is not known.
export const endedOf = ({ completed, failed, total, soFar }, one) =>
  `${count(completed + failed)} of ${soFar ? `${count(total)} so far` : one ? plural(total, one) : count(total)}`;

export const rate = (perSecond) => (perSecond >= 1000 ? count(Math.round(perSecond)) : three.format(perSecond));

// Milliseconds as 0:05, 12:34, 1:02:03.
export function clock(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// Seconds with their unit: 420 us, 1.5 ms, 3.2 s, 2:05.
export function duration(seconds) {
  if (seconds >= 100) return clock(seconds * 1000);
  if (seconds >= 1) return `${three.format(seconds)} s`;
  return seconds >= 0.001 ? `${three.format(seconds * 1000)} ms` : `${three.format(seconds * 1e6)} us`;
}

// Bytes with their unit: 812 B, 512 kB, 31 MB, 1.2 GB.
export function bytes(number) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (number >= size) return `${three.format(number / size)} ${unit}`;
  return `${count(number)} B`;
}

// A moment, as the viewer's clock has it: 12:03:04, with the date where that is not today's.
export function moment(milliseconds) {
  const date = new Date(milliseconds);
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("sv")} ${time}`; // as 2026-12-31
}

const NAMES = {
  pending: "Waiting",
  processing: "Running",
  completed: "Completed",
  failed: "Failed",
  retry: "Retrying",
  running: "Running",
  paused: "Paused",
  cancelled: "Cancelled",
  completed_with_errors: "With errors",
};
// What ran by the last news may run no longer, once nothing more comes.
const UNKNOWN = "Unknown";
export const statusName = (status, live = true) => (!live && status === "processing" ? UNKNOWN : (NAMES[status] ?? status));
export function jobStatusName({ status, cancelled, finishedAt, startedAt, recorded }, live = true) {
  if (status === "pending") return recorded && startedAt ? "Interrupted" : "Not started";
  if (!live && (status === "running" || status === "paused")) return UNKNOWN;
  return statusName(status) + (cancelled && !finishedAt ? ", being cancelled" : "");
}
// By which an item's or a job's status is coloured.
export const shade = (status, live) => (!live && ["processing", "running", "paused"].includes(status) ? "unknown" : status);

export const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const ENDING = 16; // characters of a long name that are always seen: often only its end tells it from others

// A long name as its beginning, which is cut where there is no room, and its end.
export const inTwo = (name) => (name.length > 2 * ENDING ? [name.slice(0, -ENDING), name.slice(-ENDING)] : [name, ""]);

// What an item is called: its label, or its id where that says as much.
export const nameOf = (item) => item.label ?? asText(item.id);

// What a row says of an item beside its status.
export function textOf(item) {
  if (item.status === "completed") return item.proposedAlt ?? (item.result === null || item.result === undefined ? "" : asText(item.result));
  if (item.error === undefined) return "";
  return item.error === item.errorType ? item.error : `${item.errorType}: ${item.error}`;
}
