// The images field: files chosen, dropped anywhere on the page, or pasted.

import { byId, element, icon, show } from "./dom.js";
import { announce } from "./toast.js";
import { bytes, count } from "./words.js";

// Files that are dropped or pasted anywhere on the page.
function dropsAndPastes(take) {
  const veil = byId("drop-veil");
  let inside = 0; // elements that were entered and not yet left

  function leave() {
    inside = 0;
    show(veil, false);
  }

  // Without this, a file dropped outside the field would replace the page.
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    inside += 1;
    show(veil, !byId("work").hidden);
  });
  document.addEventListener("dragleave", (event) => {
    if (hasFiles(event) && --inside <= 0) leave();
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    leave();
    if (!byId("work").hidden) take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0 || byId("work").hidden) return;
    event.preventDefault();
    take(files);
  });
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}

// One conditioning image: its picture, frame and strength.

// place: {at: "first" | "last" | "frame", frame, strength}.
class ImageRow {
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

  // As the service takes it. frames: of the whole video.
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

export class ImagesField {
  #rows = [];

  // changed: called after every change. complain: called with words about what is not taken.
  // frames: how many the video has now.
  constructor(limits, { changed, complain, frames }) {
    Object.assign(this, { limits, changed, complain, frames });
    this.list = byId("image-rows");
    const input = byId("image-files");
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    dropsAndPastes((files) => this.add(files));
  }

  get all() {
    return this.#rows.map((row) => ({ file: row.file, ...row.place }));
  }

  // {files, said}: in the same order. frames: of the whole video.
  read(frames) {
    return { files: this.#rows.map((row) => row.file), said: this.#rows.map((row) => row.said(frames)) };
  }

  add(files) {
    const taken = files.filter((file) => this.#takes(file));
    for (const file of taken) this.#append(file, { ...this.#freePlace(), strength: 1 });
    if (taken.length === 0) return;
    announce(`${count(taken.length, "image", "images")} added`);
    this.changed();
  }

  // images: [{file, at, frame, strength}].
  write(images) {
    for (const row of this.#rows) row.leave();
    this.#rows = [];
    for (const { file, ...place } of images) this.#append(file, place);
    this.#refresh();
  }

  #append(file, place) {
    const row = new ImageRow(file, place, { changed: this.changed, removed: () => this.#remove(row) });
    this.#rows.push(row);
    this.list.append(row.root);
    this.#refresh();
  }

  #remove(row) {
    const place = this.#rows.indexOf(row);
    this.#rows.splice(place, 1);
    row.leave();
    this.#refresh();
    const near = this.#rows[Math.min(place, this.#rows.length - 1)];
    (near?.root.querySelector("button") ?? byId("image-files")).focus();
    this.changed();
  }

  #takes(file) {
    if (file.type !== "" && !file.type.startsWith("image/")) {
      this.complain(`${file.name} is not an image.`);
    } else if (file.size > this.limits.max_image_bytes) {
      this.complain(
        `${file.name} has ${bytes(file.size)}; at most ${bytes(this.limits.max_image_bytes)} are taken.`,
      );
    } else if (this.#rows.length >= this.limits.max_images) {
      this.complain(`At most ${count(this.limits.max_images, "image is", "images are")} taken.`);
    } else {
      return true;
    }
    return false;
  }

  // The first image begins the video, the second ends it, others halve the longest gap.
  #freePlace() {
    const last = this.frames() - 1;
    const taken = this.#rows.map((row) => row.said(last + 1).frame).sort((one, other) => one - other);
    if (!taken.includes(0)) return { at: "first" };
    if (!taken.includes(last)) return { at: "last" };
    const gaps = taken.slice(1).map((frame, number) => ({ from: taken[number], length: frame - taken[number] }));
    const longest = gaps.reduce((one, other) => (other.length > one.length ? other : one), { from: 0, length: 0 });
    return { at: "frame", frame: longest.from + Math.floor(longest.length / 2) };
  }

  #refresh() {
    show(byId("drop"), this.#rows.length < this.limits.max_images);
  }
}
