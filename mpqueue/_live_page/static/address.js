// The address of what is looked at: #/<id of the job>/<id of the item>. The browser's back button leads to what was looked at before.

import { asText } from "./format.js";

// {job, item} of the address; null where it names none. `lost`: it is the address of nothing.
export function where() {
  const [start, job, item, ...rest] = location.hash.split("/");
  if (!job) return { job: null, item: null, lost: start.length > 1 && document.getElementById(start.slice(1)) === null };
  if (start !== "#" || rest.length) return { job: null, item: null, lost: true };
  try {
    return { job: decodeURIComponent(job), item: item ? decodeURIComponent(item) : null };
  } catch {
    return { job: null, item: null, lost: true }; // it was typed
  }
}

// `item` is an id: a text, or what is written as JSON.
const addressOf = (job, item = null) => `#/${encodeURIComponent(job)}${item === null ? "" : `/${encodeURIComponent(asText(item))}`}`;

// Go there. With `instead`, what was shown before is not come back to.
export function go(job, item = null, instead = false) {
  const address = job === null ? "#" : addressOf(job, item);
  if (location.hash === address) return;
  if (instead) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

// Call `back` when the user comes back to something by the browser's buttons, or types an address.
export function onBack(back) {
  addEventListener("popstate", () => back(where()));
}

// The address for a link to it, which has no token in it: it opens in a browser that has shown the token once.
export const linkTo = (job, item) => new URL(addressOf(job, item), location.href).href;
