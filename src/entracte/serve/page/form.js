// The form for a new video.

import { api } from "./api.js";
import { Controls } from "./controls.js";
import { byId, setText, show } from "./dom.js";
import { fillNamed, forgetDraft, loadDraft, loadImages, readNamed, saveDraft, saveImages } from "./draft.js";
import { ImagesField } from "./images.js";
import { LorasField } from "./loras.js";
import { LengthField, SizeField } from "./size.js";
import { Estimate, FieldErrors, Submission } from "./submission.js";
import { announce, toast } from "./toast.js";
import { shortened } from "./words.js";

const SAVE_MS = 300;

export class VideoForm {
  #saving = null;
  #imagesToSave = false;
  #imagesName; // of those that were saved last
  #judged = null; // the field that the last estimate complained of

  // engine: the service's limits and defaults. fields: those of a request, as the service lists them.
  // created: called with every new video.
  constructor(engine, fields, created) {
    this.engine = engine;
    this.form = byId("form");
    this.errors = new FieldErrors(this.form);
    this.controls = new Controls(this.form, fields, engine.defaults);
    this.size = new SizeField(this.form, engine);
    this.length = new LengthField(this.form, engine);
    this.loras = new LorasField(() => this.#changed());
    this.images = new ImagesField(engine.limits, {
      changed: () => this.#imagesChanged(),
      frames: () => this.length.frames,
      complain: (words) => {
        this.errors.show(words, "images");
        announce(words);
      },
    });
    this.estimate = new Estimate({
      read: () => this.#readForEstimate(),
      refused: (error) => this.#refused(error),
      accepted: () => this.#accepted(),
    });
    this.submission = new Submission(this.errors, {
      read: () => ({ fields: this.#read(), ...this.images.read(this.length.frames) }),
      created,
    });
    this.#showDefaults();
    this.#listen();
  }

  async open() {
    const draft = loadDraft();
    fillNamed(this.form, { ...this.#empty(), ...draft?.values });
    this.loras.write(draft?.loras ?? []);
    this.#refresh();
    this.#imagesName = draft?.images;
    this.images.write(await loadImages(this.#imagesName));
    this.estimate.soon();
    try {
      this.loras.offer(await api.loras());
    } catch {
      this.loras.offer([]);
    }
  }

  // Settings of a video, with a random seed; images: [{file, frame, strength, crf}].
  reuse(settings, images) {
    this.errors.clearAll();
    this.controls.fill({ ...settings, seed: undefined });
    this.size.write(settings.size);
    this.length.write(settings);
    this.loras.write(settings.loras ?? []);
    const last = settings.num_frames - 1;
    this.images.write(
      images.map((image) => ({
        ...image,
        at: image.frame === 0 ? "first" : image.frame === last ? "last" : "frame",
      })),
    );
    this.#imagesChanged();
    this.form.elements.prompt.focus();
  }

  setSeed(seed) {
    this.form.elements.seed.value = seed;
    this.#changed();
  }

  setPrompt(prompt) {
    this.form.elements.prompt.value = prompt;
    this.#changed();
    this.form.elements.prompt.focus();
  }

  // The queue or the engine has changed, and with them what the form says of time.
  estimateAgain() {
    this.estimate.soon();
  }

  forget() {
    clearTimeout(this.#saving);
    forgetDraft();
  }

  #listen() {
    this.form.addEventListener("input", (event) => {
      const field = event.target.closest(".field");
      if (field) this.errors.clear(field);
      this.#changed();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submission.send();
    });
    // After the event, the browser has emptied the controls.
    this.form.addEventListener("reset", () => {
      const before = this.#written();
      setTimeout(() => this.#cleared(before));
    });
    byId("random-seed").addEventListener("click", () => {
      this.setSeed("");
      this.form.elements.seed.focus();
      announce("The seed is random.");
    });
    document.addEventListener("keydown", (event) => {
      const wanted = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat;
      if (!wanted || byId("work").hidden) return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    addEventListener("pagehide", () => this.#save());
  }

  #showDefaults() {
    const { defaults, limits } = this.engine;
    const { elements } = this.form;
    elements.prompt.maxLength = limits.max_prompt_chars;
    elements.negative_prompt.maxLength = limits.max_prompt_chars;
    elements.negative_prompt.placeholder = shortened(defaults.negative_prompt ?? "", 70);
    show(byId("images"), limits.max_images > 0);
    const apple = /Mac|iPhone|iPad/.test(navigator.platform);
    setText(byId("create-keys"), `or ${apple ? "⌘" : "Ctrl"} + Enter`);
  }

  #empty() {
    return { size: this.engine.defaults.size, length: this.engine.defaults.seconds, unit: "seconds" };
  }

  #changed() {
    this.submission.renew();
    this.#refresh();
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#save(), SAVE_MS);
    this.estimate.soon();
  }

  #imagesChanged() {
    this.errors.clear(byId("images"));
    this.#imagesToSave = true;
    this.#changed();
  }

  #refresh() {
    this.size.refresh();
    this.controls.describeChoices();
    show(byId("random-seed"), this.form.elements.seed.value !== "");
  }

  #save() {
    if (byId("work").hidden) return;
    if (this.#imagesToSave) this.#imagesName = saveImages(this.images.all);
    this.#imagesToSave = false;
    saveDraft({ values: readNamed(this.form), loras: this.loras.draft, images: this.#imagesName });
  }

  #cleared(before) {
    this.#write({ values: this.#empty(), loras: [], images: [] });
    this.form.elements.prompt.focus();
    toast("The form is empty.", { action: "Undo", act: () => this.#write(before) });
  }

  // All that stands in the form.
  #written() {
    return { values: readNamed(this.form), loras: this.loras.draft, images: this.images.all };
  }

  #write({ values, loras, images }) {
    fillNamed(this.form, values);
    this.loras.write(loras);
    this.images.write(images);
    this.errors.clearAll();
    this.#imagesChanged();
    this.#save(); // at once: a reload right now is not to bring back what was cleared
  }

  // Raises BadInput.
  #read() {
    const loras = this.loras.read();
    return {
      ...this.controls.read(),
      ...this.size.read(),
      ...this.length.read(),
      ...(loras.length > 0 && { loras }),
    };
  }

  // Its time does not depend on the words, which may still be missing.
  #readForEstimate() {
    const fields = this.#read();
    const { said } = this.images.read(this.length.frames);
    if (fields.prompt.trim() === "") fields.prompt = "…";
    if (said.length > 0) fields.images = said;
    return fields;
  }

  #refused({ message, param = null }) {
    this.#accepted();
    this.#judged = this.errors.show(message, param);
  }

  // What an estimate complained of before is right now. Other errors are not its own to take back.
  #accepted() {
    if (this.#judged) this.errors.clear(this.#judged);
    this.#judged = null;
  }
}
