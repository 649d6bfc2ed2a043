// One clock for everything that counts seconds, so that all of it changes at once.

const listeners = new Set();
let timer = null;

// Returns a function that stops it.
export function everySecond(tell) {
  listeners.add(tell);
  timer ??= setInterval(() => listeners.forEach((each) => each()), 1000);
  return () => {
    listeners.delete(tell);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = null;
  };
}
