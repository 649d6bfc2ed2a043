// Errors beside the fields that they are about. A field says in data-params which of the service's
// parameters it stands for.

import { setText, show } from "../base/dom.js";
import { besideField } from "../base/words.js";

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
