// Signing in and out. The key is exchanged for a cookie, as media elements cannot send headers.

import { api } from "./api.js";
import { byId, setText, show } from "./dom.js";
import { besideField } from "./words.js";

// The terminal prints an address that ends with #key=…; the key does not stay in the address.
export function takeKeyFromAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key !== null) history.replaceState(null, "", location.pathname + location.search);
  return key;
}

export class SignIn {
  // entered: called once the service knows the page.
  constructor(entered) {
    this.entered = entered;
    this.view = byId("sign-in");
    this.field = byId("key");
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(this.field.value);
    });
  }

  open(words = null) {
    show(this.view, true);
    this.#complain(words);
    this.field.focus();
  }

  // Returns whether the key was good; says why not, beside the field.
  async try(key) {
    try {
      await api.signIn(key.trim());
      return true;
    } catch (error) {
      this.#complain(besideField(error.message, error.param));
      return false;
    }
  }

  async #submit(key) {
    if (key.trim() === "") {
      this.#complain("Enter a key.");
      this.field.focus();
      return;
    }
    const button = this.view.querySelector("button");
    button.disabled = true;
    const good = await this.try(key);
    button.disabled = false;
    if (!good) {
      this.field.select();
      return;
    }
    this.field.value = "";
    show(this.view, false);
    this.entered();
  }

  #complain(words) {
    const error = byId("key-error");
    setText(error, words ?? "");
    show(error, words !== null);
    if (words === null) this.field.removeAttribute("aria-invalid");
    else this.field.setAttribute("aria-invalid", "true");
  }
}
