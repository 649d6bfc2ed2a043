// One conditioning image: its picture, where it stands, and how strongly it counts.

import { element, show } from "../base/dom.js";
import { icon } from "../base/icons.js";

// place: {at: "first" | "last" | "frame", frame, strength}.
export class ImageRow {
  constructor(file, place, { changed, removed }) {
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.crf = place.crf ?? null;
    const name = file.name || "pasted image";

    this.at = element(
      "select",
      { "aria-label": `Where ${name} stands`, "aria-describedby": "images-error" },
      element("option", { value: "first" }, "First frame"),
      element("option", { value: "last" }, "Last frame"),
      element("option", { value: "frame" }, "Frame…"),
    );
    this.frame = element("input", {
      type: "number",
      inputmode: "numeric",
      min: 0,
      step: 1,
      "aria-label": `Frame of ${name}, from 0`,
      "aria-describedby": "images-error",
    });
    this.strength = element("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": `Strength of ${name}` });
    this.strengthWords = element("output", {});
    this.at.value = place.at;
    this.frame.value = place.frame ?? 0;
    this.strength.value = place.strength ?? 1;

    const remove = element(
      "button",
      { type: "button", class: "plain icon-only", "aria-label": `Leave out ${name}`, title: "Leave out", onclick: removed },
      icon("close"),
    );
    this.root = element(
      "li",
      { class: "image-row" },
      element("img", { src: this.url, alt: name }),
      element(
        "div",
        { class: "image-settings" },
        element("div", { class: "image-place" }, this.at, this.frame),
        element("label", { class: "image-strength" }, element("span", {}, "Strength"), this.strength, this.strengthWords),
      ),
      remove,
    );
    this.root.addEventListener("input", () => {
      this.#refresh();
      changed();
    });
    this.#refresh();
  }

  get place() {
    return {
      at: this.at.value,
      frame: Number(this.frame.value),
      strength: Number(this.strength.value),
      crf: this.crf,
    };
  }

  // What the service is told; frames: of the whole video.
  said(frames) {
    const { at, frame, strength, crf } = this.place;
    const numbers = { first: 0, last: frames - 1, frame };
    return { frame: numbers[at], strength, ...(crf !== null && { crf }) };
  }

  leave() {
    URL.revokeObjectURL(this.url);
    this.root.remove();
  }

  #refresh() {
    show(this.frame, this.at.value === "frame");
    this.strengthWords.textContent = `${Math.round(this.strength.value * 100)} %`;
  }
}
