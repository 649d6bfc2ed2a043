// Sending the form, once for every press, and saying what was wrong with it.

import { byId } from "../base/dom.js";
import { api } from "../service/api.js";
import { BadInput } from "./controls.js";
import { newIdempotencyKey, requestForm } from "./request.js";

export class Submission {
  #idempotencyKey = newIdempotencyKey();

  // read: {fields, files, said}, or throws BadInput. created: called with the new video.
  constructor(errors, { read, created }) {
    Object.assign(this, { errors, read, created });
    this.button = byId("create");
  }

  // The form has changed: sent again, it is another request.
  renew() {
    this.#idempotencyKey = newIdempotencyKey();
  }

  async send() {
    if (this.button.getAttribute("aria-disabled") === "true") return;
    this.errors.clearAll();
    // Not disabled in earnest: that would take the focus from it.
    this.button.setAttribute("aria-disabled", "true");
    try {
      const { fields, files, said } = this.read();
      if (fields.prompt.trim() === "") throw new BadInput("prompt", "Say what the video should show.");
      const video = await api.create(requestForm(fields, files, said), this.#idempotencyKey);
      this.renew();
      this.created(video);
    } catch (error) {
      this.#complain(error);
    } finally {
      this.button.removeAttribute("aria-disabled");
    }
  }

  #complain(error) {
    if (error.status === undefined && !(error instanceof BadInput)) throw error;
    const wait = error.retryAfter ? ` There may be room in ${error.retryAfter} s.` : "";
    const field = this.errors.show(error.message + wait, error.param ?? null);
    this.errors.goTo(field, error.param);
  }
}
