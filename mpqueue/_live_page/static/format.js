// Numbers, times and names, as people read them.

const whole = new Intl.NumberFormat("en");
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (number) => whole.format(number);

export function percent(done, total) {
  if (!total) return 100;
  const value = (100 * done) / total;
  return done < total ? Math.min(99, Math.floor(value)) : 100; // 100% only when it is over
}

export const rate = (perSecond) => (perSecond >= 1000 ? count(Math.round(perSecond)) : three.format(perSecond));

// Milliseconds as 0:05, 12:34, 1:02:03.
export function clock(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// Seconds with their unit: 420 µs, 1.5 ms, 3.2 s, 2:05.
export function duration(seconds) {
  if (seconds >= 100) return clock(seconds * 1000);
  if (seconds >= 1) return `${three.format(seconds)} s`;
  return seconds >= 0.001 ? `${three.format(seconds * 1000)} ms` : `${three.format(seconds * 1e6)} µs`;
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
export const statusName = (status) => NAMES[status] ?? status;
export const jobStatusName = (status) => (status === "pending" ? "Not started" : statusName(status));

export const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
