// The LoRAs to merge in, each with a strength.

import { BadInput } from "./controls.js";
import { byId, element, icon, show } from "./dom.js";

export class LorasField {
  constructor(changed) {
    this.changed = changed;
    this.rows = byId("lora-rows");
    this.select = byId("lora-add");
    this.known = [];
    this.select.addEventListener("change", () => {
      this.#add({ name: this.select.value, strength: 1 });
      this.rows.lastElementChild.querySelector("input").focus();
      this.changed();
    });
  }

  offer(loras) {
    this.known = loras.map((lora) => lora.id);
    show(byId("lora-none"), this.known.length === 0);
    this.#refresh();
  }

  // Raises BadInput.
  read() {
    const chosen = this.#chosen();
    for (const { name, text } of chosen) {
      if (text.trim() === "" || !Number.isFinite(Number(text))) {
        throw new BadInput("loras", `The strength of ${name} is not a number.`);
      }
    }
    return chosen.map(({ name, text, partial }) => ({ name, strength: Number(text), partial }));
  }

  // As it stands, numbers or not.
  get draft() {
    return this.#chosen().map(({ name, text, partial }) => ({ name, strength: text, partial }));
  }

  write(loras) {
    this.rows.replaceChildren();
    for (const lora of loras) this.#add(lora);
    this.#refresh();
  }

  #chosen() {
    return [...this.rows.children].map((row) => ({
      name: row.dataset.name,
      text: row.querySelector("[type=number]").value,
      partial: row.querySelector("[type=checkbox]").checked,
    }));
  }

  #add({ name, strength, partial = false }) {
    const input = element("input", {
      type: "number",
      step: "any",
      inputmode: "decimal",
      value: strength,
      "aria-label": `Strength of ${name}`,
      "aria-describedby": "loras-error",
    });
    const fits = element("input", {
      type: "checkbox",
      checked: partial,
      "aria-label": `Only what fits of ${name}`,
    });
    const fitsLabel = element(
      "label",
      { class: "check", title: "Leave out, with a warning, what of the file cannot be applied" },
      fits,
      element("span", {}, "only what fits"),
    );
    const remove = element(
      "button",
      { type: "button", class: "plain icon-only", "aria-label": `Leave out ${name}`, title: "Leave out" },
      icon("close"),
    );
    const row = element(
      "li",
      { class: "lora-row", "data-name": name },
      element("span", {}, name),
      input,
      remove,
      fitsLabel,
    );
    remove.addEventListener("click", () => {
      row.remove();
      this.#refresh();
      this.select.focus();
      this.changed();
    });
    this.rows.append(row);
    this.#refresh();
  }

  #refresh() {
    const chosen = new Set(this.#chosen().map(({ name }) => name));
    const left = this.known.filter((name) => !chosen.has(name));
    this.select.replaceChildren(
      element("option", { value: "", disabled: true, selected: true }, "Add a LoRA…"),
      ...left.map((name) => element("option", { value: name }, name)),
    );
    show(this.select, left.length > 0);
  }
}
