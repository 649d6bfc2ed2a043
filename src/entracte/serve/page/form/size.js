// The size: one of the usual ones, or width and height.

import { byId, element, show } from "../base/dom.js";
import { size as spaced } from "../base/words.js";
import { readNumber } from "./controls.js";

const USUAL = ["768x512", "1280x720", "1920x1080", "512x768", "720x1280", "1080x1920", "512x512", "1024x1024"];
const CUSTOM = "custom";

export class SizeField {
  constructor(form, { defaults, limits }) {
    this.select = byId("size");
    this.width = form.elements.width;
    this.height = form.elements.height;
    this.usual = defaults.size;
    const sizes = USUAL.includes(defaults.size) ? USUAL : [defaults.size, ...USUAL];
    const possible = sizes.filter((each) => Math.max(...sides(each)) <= limits.max_side);
    for (const name of ["Landscape", "Portrait", "Square"]) {
      const alike = possible.filter((each) => shape(each) === name);
      const options = alike.map((each) => element("option", { value: each }, spaced(each)));
      if (options.length > 0) this.select.append(element("optgroup", { label: name }, ...options));
    }
    this.select.append(element("option", { value: CUSTOM }, "Custom…"));
    for (const side of [this.width, this.height]) side.max = limits.max_side;
    this.select.addEventListener("change", () => this.#chosen());
  }

  // Raises BadInput.
  read() {
    if (this.select.value !== CUSTOM) return { size: this.select.value };
    const [width, height] = [readNumber(this.width), readNumber(this.height)];
    return { ...(width !== null && { width }), ...(height !== null && { height }) };
  }

  write(size) {
    const known = [...this.select.options].some((option) => option.value === size);
    this.select.value = known ? size : CUSTOM;
    if (!known) [this.width.value, this.height.value] = sides(size);
    this.refresh();
  }

  // After the controls were filled from elsewhere.
  refresh() {
    if (this.select.value === "") this.select.value = this.usual;
    show(byId("custom-size"), this.select.value === CUSTOM);
  }

  #chosen() {
    const custom = this.select.value === CUSTOM;
    if (custom && this.width.value === "" && this.height.value === "") {
      [this.width.value, this.height.value] = sides(this.usual);
    }
    this.refresh();
    if (custom) this.width.focus();
  }
}

function sides(size) {
  return size.split("x").map(Number);
}

function shape(size) {
  const [width, height] = sides(size);
  return width > height ? "Landscape" : width < height ? "Portrait" : "Square";
}
