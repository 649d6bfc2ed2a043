// Memory as a stacked bar with a legend that has the numbers.

import { element, setText } from "../base/dom.js";
import { bytes } from "../base/words.js";

export class MemoryView {
  constructor() {
    this.words = element("p", { class: "memory-words" });
    this.bar = element("div", { class: "memory-bar", role: "img" });
    this.legend = element("ul", { class: "legend", "aria-label": "Memory by component" });
    this.root = element("div", { class: "memory" }, this.words, this.bar, this.legend);
  }

  update(memory) {
    const told = JSON.stringify(memory);
    if (told === this.told) return;
    this.told = told;
    const { parts, used, total } = memory;
    const onCpu = total === null;
    const words = onCpu ? `${bytes(used)} of host memory` : `${bytes(used)} of ${bytes(total)} on the device`;
    setText(this.words, words);
    this.#drawBar(parts, total ?? used, onCpu ? "Host memory" : "Device memory");
    this.legend.replaceChildren(...parts.map(legendRow));
  }

  #drawBar(parts, whole, place) {
    const shown = parts.filter((part) => part.device > 0);
    while (this.bar.children.length > shown.length) this.bar.lastElementChild.remove();
    while (this.bar.children.length < shown.length) this.bar.append(element("span"));
    shown.forEach((part, number) => {
      const { style } = this.bar.children[number];
      style.flexBasis = `${(part.device / whole) * 100}%`;
      style.backgroundColor = part.colour;
      this.bar.children[number].title = `${part.name}: ${bytes(part.device)}`;
    });
    const list = shown.map((part) => `${part.name} ${bytes(part.device)}`).join(", ");
    this.bar.setAttribute("aria-label", `${place}: ${list}`);
  }
}

function legendRow({ name, colour, device, host, content }) {
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.backgroundColor = colour;
  const rest = [content, host > 0 ? `${bytes(host)} in host memory` : ""].filter(Boolean).join(" · ");
  return element(
    "li",
    {},
    swatch,
    element("span", { class: "legend-name" }, name),
    element("span", { class: "legend-bytes" }, device > 0 ? bytes(device) : "–"),
    rest ? element("small", {}, rest) : null,
  );
}
