// The images field: files that are chosen, dropped anywhere on the page, or pasted.

import { announce } from "../base/announce.js";
import { byId, show } from "../base/dom.js";
import { bytes, count } from "../base/words.js";
import { dropsAndPastes } from "./drops.js";
import { ImageRow } from "./image_row.js";

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
      this.complain(`${file.name} is no image.`);
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
