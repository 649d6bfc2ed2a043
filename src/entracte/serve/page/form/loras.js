// The LoRAs to merge in, each with a strength.

import { byId, element, show } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { BadInput } from "./controls.js";

export class LorasField {
  constructor(changed) {
    this.changed = changed;
    this.rows = byId("lora-rows");
    this.select = byId("lora-add");
    this.known = [];
    this.select.addEventListener("change", () => {
      this.#add(this.select.value, 1);
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
    return chosen.map(({ name, text }) => ({ name, strength: Number(text) }));
  }

  // As it stands, numbers or not.
  get draft() {
    return this.#chosen().map(({ name, text }) => ({ name, strength: text }));
  }

  write(loras) {
    this.rows.replaceChildren();
    for (const { name, strength } of loras) this.#add(name, strength);
    this.#refresh();
  }

  #chosen() {
    return [...this.rows.children].map((row) => ({
      name: row.dataset.name,
      text: row.querySelector("input").value,
    }));
  }

  #add(name, strength) {
    const input = element("input", {
      type: "number",
      step: "any",
      inputmode: "decimal",
      value: strength,
      "aria-label": `Strength of ${name}`,
      "aria-describedby": "loras-error",
    });
    const remove = element(
      "button",
      { type: "button", class: "plain icon-only", "aria-label": `Leave out ${name}`, title: "Leave out" },
      icon("close"),
    );
    const row = element("li", { class: "lora-row", "data-name": name }, element("span", {}, name), input, remove);
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
