// What the video will cost in seconds, asked for whenever the form has been quiet for a moment.

import { byId, element } from "../base/dom.js";
import { about, count, size, trim } from "../base/words.js";
import { ApiError, api } from "../service/api.js";
import { BadInput } from "./controls.js";

const QUIET_MS = 350;

export class Estimate {
  #timer = null;
  #asked = null; // AbortController of the request on its way

  // read: the form's fields, or throws. refused: called with {message, param} where the service
  // would refuse them. accepted: called where it would not.
  constructor({ read, refused, accepted }) {
    Object.assign(this, { read, refused, accepted });
    this.line = byId("estimate");
  }

  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), QUIET_MS);
  }

  async #ask() {
    this.#asked?.abort();
    this.#asked = new AbortController();
    const { signal } = this.#asked;
    this.line.classList.add("stale");
    try {
      const estimate = await api.estimate(this.read(), signal);
      if (signal.aborted) return;
      this.accepted();
      this.#say(headline(estimate), details(estimate));
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      // What is no refusal says itself elsewhere, or when a video is asked for.
      const refusal = error instanceof BadInput || error.status === 400;
      if (refusal) this.refused(error);
      else if (!(error instanceof ApiError)) throw error;
      this.#say("", refusal ? "Correct what is marked, to see how long it will take." : "");
    }
  }

  #say(head, rest) {
    this.line.classList.remove("stale");
    this.line.replaceChildren(element("strong", {}, head), element("span", {}, rest));
  }
}

function headline({ estimated_s }) {
  if (estimated_s === null) return "Its time is not known yet";
  const words = about(estimated_s);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function details({ num_frames, fps, size: asked, render_size, queue_s }) {
  const parts = [`${count(num_frames, "frame", "frames")} at ${trim(fps, 2)} a second`];
  if (render_size !== asked) parts.push(`rendered at ${size(render_size)}, then cut`);
  if (queue_s >= 1) parts.push(`begins in ${about(queue_s)}`);
  return parts.join(" · ");
}
