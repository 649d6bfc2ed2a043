// Server-sent events: the parser, the connection, and the banner that says when it is lost.

import { api, parseJson } from "./api.js";
import { byId, everySecond, setText, show } from "./dom.js";

// Parses server-sent events. EventSource would hide why a connection ended, and the comments that
// show it to be alive.
class EventParser {
  #rest = "";
  #kind = "";
  #data = [];

  // Text as it came; returns the events that it completes, as {kind, data}.
  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") this.#end(events);
      else this.#take(line);
    }
    return events;
  }

  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#kind = value;
    else if (name === "data") this.#data.push(value);
  }

  #end(events) {
    if (this.#data.length > 0) {
      events.push({ kind: this.#kind || "message", data: this.#data.join("\n") });
    }
    this.#kind = "";
    this.#data = [];
  }
}

// The one connection over which the service sends events. It reconnects by itself.
//
// Dispatches "open" when it is connected, "lost" with {seconds} until the next try, and "event"
// with {kind, data}.

const EVENTS_URL = "/v1/events";

// The service sends something every fifteen seconds, if only a comment.
const SILENCE_MS = 40_000;

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 15;

export class EventStream extends EventTarget {
  #running = null; // AbortController of the present run
  #failures = 0;
  #wake = () => {};

  start() {
    if (this.#running) return;
    this.#running = new AbortController();
    this.#run(this.#running.signal);
  }

  stop() {
    this.#running?.abort();
    this.#running = null;
    this.#wake();
  }

  retryNow() {
    this.#wake();
  }

  async #run(stopped) {
    while (!stopped.aborted) {
      try {
        await this.#listen(stopped);
      } catch {
        // Refused, cut off or silent: try again in any case.
      }
      if (stopped.aborted) return;
      const seconds = this.#waitSeconds();
      this.#failures += 1;
      this.#dispatch("lost", { seconds });
      await this.#sleep(seconds * 1000);
    }
  }

  async #listen(stopped) {
    const silent = new AbortController();
    const signal = AbortSignal.any([stopped, silent.signal]);
    let timer = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const answer = await fetch(EVENTS_URL, { signal, headers: { Accept: "text/event-stream" } });
      if (answer.status === 401) api.dispatchEvent(new Event("signed-out"));
      if (!answer.ok) return;
      const parser = new EventParser();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let open = false; ; ) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENCE_MS);
        if (!open) this.#opened();
        open = true;
        for (const event of parser.feed(value)) this.#receive(event);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #opened() {
    this.#failures = 0;
    this.#dispatch("open");
  }

  #receive({ kind, data }) {
    let parsed;
    try {
      parsed = parseJson(data);
    } catch {
      return; // of a kind that this page does not know
    }
    this.#dispatch("event", { kind, data: parsed });
  }

  // Longer with every failure, with jitter, so that pages do not reconnect all at once.
  #waitSeconds() {
    const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this.#failures);
    return wait * (0.75 + Math.random() / 2);
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// The banner that says when the service does not answer, and when the next try is.

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
    show(byId("engine-status"), false); // it is outdated
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

  // For what the page cannot do without: repeats the call until there is an answer.
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
