// What stands in the form, kept in this browser until it is cleared.

import { loadImages, saveImages } from "./image_store.js";

const KEY = "entracte.draft";

export function saveDraft(draft) {
  try {
    localStorage.setItem(KEY, JSON.stringify(draft));
  } catch {
    // Full or forbidden: the form works all the same.
  }
}

export function loadDraft() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return null;
  }
}

export function forgetDraft() {
  localStorage.removeItem(KEY);
  saveImages([]);
}

export { loadImages, saveImages };

// The named controls of a form, as they stand.
export function readNamed(form) {
  const values = {};
  for (const control of form.elements) {
    if (control.name) values[control.name] = control.type === "checkbox" ? control.checked : control.value;
  }
  return values;
}

export function fillNamed(form, values) {
  for (const control of form.elements) {
    if (!control.name || !(control.name in values)) continue;
    if (control.type === "checkbox") control.checked = values[control.name] === true;
    else control.value = values[control.name];
  }
}
