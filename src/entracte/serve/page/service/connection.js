// Says when the service does not answer, and when it is tried again.

import { byId, setText, show } from "../base/dom.js";
import { everySecond } from "../base/ticker.js";

const SHORT_S = 1;
const RETRY_MS = 1500;

export function connectionBanner(stream) {
  const banner = byId("connection");
  let at = 0; // when the next try is, on the clock of performance.now()
  let stopTicking = () => {};

  function lost(seconds) {
    at = performance.now() + seconds * 1000;
    stopTicking();
    stopTicking = everySecond(count);
    count();
    show(banner, true);
    show(byId("engine-status"), false); // it may be anything by now
  }
  function count() {
    const left = Math.round((at - performance.now()) / 1000);
    setText(byId("connection-when"), left > SHORT_S ? `Next try in ${left} s` : "");
  }
  function hide() {
    stopTicking();
    show(banner, false);
  }

  stream.addEventListener("lost", ({ detail }) => lost(detail.seconds));
  stream.addEventListener("open", hide);
  byId("connection-retry").addEventListener("click", () => stream.retryNow());
  addEventListener("online", () => stream.retryNow());

  // For what the page cannot do without: asks until there is an answer.
  async function untilAnswered(ask) {
    for (;;) {
      try {
        const answer = await ask();
        hide();
        return answer;
      } catch (error) {
        if (error.status > 0 && error.status < 500) throw error;
        lost(RETRY_MS / 1000);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  return { hide, untilAnswered };
}
