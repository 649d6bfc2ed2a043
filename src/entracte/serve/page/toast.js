// Messages to the user: notices at the edge of the page, and announcements to screen readers.

import { byId, element, icon } from "./dom.js";

// Between two announcements: screen readers hear them one at a time.
const PAUSE_MS = 1500;
const waiting = [];
let speaking = false;

export function announce(words) {
  // The same words are not queued twice.
  if (!waiting.includes(words)) waiting.push(words);
  if (!speaking) next();
}

function next() {
  const words = waiting.shift();
  speaking = words !== undefined;
  if (!speaking) return;
  const region = byId("announcer");
  region.textContent = "";
  // A region that is emptied and filled in one go may count as unchanged.
  setTimeout(() => (region.textContent = words), 50);
  setTimeout(next, PAUSE_MS);
}

// How long a notice stays.
const SECONDS = 6;

// A notice at the edge of the page, which disappears on its own and may offer one action.
// Calls `ended(acted)` once, when the notice goes. Returns {act, dismiss}.
export function toast(words, { action, act, ended, seconds = SECONDS, error = false } = {}) {
  let left = seconds * 1000;
  let since = 0;
  let timer = null;
  let gone = false;

  function leave(acted) {
    if (gone) return;
    gone = true;
    clearTimeout(timer);
    box.remove();
    if (acted && act) act();
    if (ended) ended(acted);
  }
  // Does not run while the user may be about to press the button.
  function pause() {
    clearTimeout(timer);
    if (timer !== null) left -= performance.now() - since;
    timer = null;
  }
  function run() {
    pause();
    if (gone) return;
    since = performance.now();
    timer = setTimeout(() => leave(false), Math.max(1000, left));
  }

  const button = action
    ? element("button", { type: "button", class: "small", onclick: () => leave(true) }, action)
    : null;
  const close = element(
    "button",
    { type: "button", class: "plain icon-only small", onclick: () => leave(false), "aria-label": "Dismiss" },
    icon("close"),
  );
  const box = element("div", { class: error ? "toast bad" : "toast" }, element("p", {}, words), button, close);
  for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, pause);
  for (const event of ["pointerleave", "focusout"]) box.addEventListener(event, run);
  byId("toasts").append(box);
  run();
  return { act: () => leave(true), dismiss: () => leave(false) };
}
