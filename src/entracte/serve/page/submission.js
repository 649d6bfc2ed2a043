// What the service says of the form: errors beside the fields, the estimate, and the new video.

import { api, ApiError, newIdempotencyKey, requestForm } from "./api.js";
import { BadInput } from "./controls.js";
import { byId, element, setText, show } from "./dom.js";
import { about, besideField, count, size, trim } from "./words.js";

// Errors beside the fields that they are about. A field says in data-params which of the service's
// parameters it stands for.
export class FieldErrors {
  constructor(form) {
    this.form = form;
    this.rest = form.querySelector('.field[data-params=""]');
  }

  // Returns the field at fault.
  show(message, param) {
    const field = this.#fieldOf(param) ?? this.rest;
    const error = field.querySelector(".error");
    setText(error, besideField(message, param));
    show(error, true);
    for (const control of controlsOf(field, param)) control.setAttribute("aria-invalid", "true");
    return field;
  }

  // Opens what hides the field, and goes there.
  goTo(field, param = null) {
    if (field === this.rest) return;
    const folded = field.closest("details");
    if (folded) folded.open = true;
    (controlsOf(field, param)[0] ?? field.querySelector("input, select, textarea, button"))?.focus();
  }

  clear(field) {
    show(field.querySelector(".error"), false);
    setText(field.querySelector(".error"), "");
    for (const control of field.querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
    }
  }

  clearAll() {
    for (const field of this.form.querySelectorAll(".field")) this.clear(field);
  }

  #fieldOf(param) {
    if (!param) return null;
    const name = param.split(".")[0];
    return this.form.querySelector(`.field[data-params~="${CSS.escape(name)}"]`);
  }
}

// Of a field with several controls, those that are named so; else all that can be seen.
function controlsOf(field, param) {
  const all = [...field.querySelectorAll("input, select, textarea")];
  const named = all.filter((control) => control.name && control.name === param);
  if (named.length > 0 && named[0].offsetParent !== null) return named;
  const seen = all.filter((control) => control.offsetParent !== null && control.type !== "checkbox");
  return field.tagName === "FIELDSET" ? [] : seen;
}

// What the video will cost in seconds, asked for whenever the form has been quiet for a moment.

const QUIET_MS = 350;

// How long until an estimate that was not known in time, or to no worker yet, is asked for again.
const UNKNOWN_MS = 3000;

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
      if (estimate.estimated_s === null) {
        this.#timer = setTimeout(() => this.#ask(), UNKNOWN_MS);
      }
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      // Other errors are shown elsewhere, or when the form is sent.
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

// Sends the form, once per press, and shows what was wrong.
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
    // Not actually disabled, which would remove the focus.
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
