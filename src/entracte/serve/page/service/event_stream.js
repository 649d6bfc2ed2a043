// The one connection over which the service tells what happens. It comes back by itself.
//
// Dispatches "open" when news begin to come, "lost" with {seconds} until the next try, and
// "news" with {kind, data}.

import { api } from "./api.js";
import { EventParser } from "./event_parser.js";
import { parseJson } from "./json.js";

const URL = "/v1/events";

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
        // Refused, cut off or silent: all the same, it is tried again.
      }
      if (stopped.aborted) return;
      const seconds = this.#waitSeconds();
      this.#failures += 1;
      this.#tell("lost", { seconds });
      await this.#sleep(seconds * 1000);
    }
  }

  async #listen(stopped) {
    const silent = new AbortController();
    const signal = AbortSignal.any([stopped, silent.signal]);
    let timer = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const answer = await fetch(URL, { signal, headers: { Accept: "text/event-stream" } });
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
        for (const event of parser.feed(value)) this.#hear(event);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #opened() {
    this.#failures = 0;
    this.#tell("open");
  }

  #hear({ kind, data }) {
    let parsed;
    try {
      parsed = parseJson(data);
    } catch {
      return; // of a kind that this page does not know
    }
    this.#tell("news", { kind, data: parsed });
  }

  // Longer with every failure, and not the same for all pages that lost the same server.
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

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
