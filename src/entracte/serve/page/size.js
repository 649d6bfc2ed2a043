// Size and length of the video.

import { BadInput, readNumber } from "./controls.js";
import { byId, element, show } from "./dom.js";
import { size as spaced } from "./words.js";

// The size: one of the usual ones, or width and height.

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

// The length, in seconds or in frames. The model makes 8k + 1 frames.

const TIME = 8; // frames that one latent frame stands for

export class LengthField {
  constructor(form, { defaults }) {
    this.input = byId("length");
    this.unit = form.elements.unit;
    this.fps = form.elements.fps;
    this.defaults = defaults;
    this.input.placeholder = defaults.seconds;
    this.unit.addEventListener("change", () => this.#convert());
  }

  // Raises BadInput.
  read() {
    const length = readNumber(this.input);
    return length === null ? {} : { [this.unit.value]: length };
  }

  // The settings of a video: in seconds where that says the same.
  write({ seconds, num_frames, fps }) {
    const same = framesOf(Number(seconds), fps) === num_frames;
    this.unit.value = same ? "seconds" : "num_frames";
    this.input.value = same ? seconds : num_frames;
  }

  get frames() {
    let length;
    try {
      length = readNumber(this.input);
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      length = null;
    }
    if (length !== null && this.unit.value === "num_frames") return Number(length);
    return framesOf(Number(length ?? this.defaults.seconds), Number(this.fps.value || this.defaults.fps));
  }

  // Changing the unit keeps the length.
  #convert() {
    if (this.input.value === "") {
      this.input.placeholder = this.unit.value === "seconds" ? this.defaults.seconds : this.frames;
      return;
    }
    const fps = Number(this.fps.value || this.defaults.fps);
    const value = Number(this.input.value);
    const converted =
      this.unit.value === "num_frames" ? framesOf(value, fps) : Number((value / fps).toFixed(2));
    this.input.value = converted;
  }
}

// As the service counts them, which rounds halves to the even side.
function framesOf(seconds, fps) {
  const units = (seconds * fps) / TIME;
  const below = Math.floor(units);
  const rounded = units - below === 0.5 ? below + (below % 2) : Math.round(units);
  return Math.max(1, rounded) * TIME + 1;
}
