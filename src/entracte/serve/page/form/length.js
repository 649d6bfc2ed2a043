// The length, in seconds or in frames. The model makes 8k + 1 frames.

import { byId } from "../base/dom.js";
import { BadInput, readNumber } from "./controls.js";

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
export function framesOf(seconds, fps) {
  const units = (seconds * fps) / TIME;
  const below = Math.floor(units);
  const rounded = units - below === 0.5 ? below + (below % 2) : Math.round(units);
  return Math.max(1, rounded) * TIME + 1;
}
