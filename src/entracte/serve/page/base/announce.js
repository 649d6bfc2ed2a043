// Says things to screen readers, one at a time and not too often.

import { byId } from "./dom.js";

const PAUSE_MS = 1500;
const waiting = [];
let speaking = false;

export function announce(words) {
  // Of what has not been said yet, the same twice is once too often.
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
