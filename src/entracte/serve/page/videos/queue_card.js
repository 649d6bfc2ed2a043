// A video that waits or is being made.

import { element, setText, show } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { everySecond } from "../base/ticker.js";
import { about, size, trim } from "../base/words.js";
import { imageUrl } from "../service/api.js";
import { secondsLeft } from "../service/videos.js";
import { partOf, partsOf, partWords, stageWords } from "./acts.js";

export class QueueCard {
  // cancel: called with the id.
  constructor(video, cancel) {
    this.picture = element("div", { class: "job-picture", "aria-hidden": "true" }, icon("film"));
    this.prompt = element("h3", { class: "job-prompt" }, video.prompt);
    this.parts = element("ol", { class: "acts", "aria-label": "Parts of the work" });
    for (const part of partsOf(video.settings.pipeline)) {
      this.parts.append(element("li", { "data-part": part }, partWords(part)));
    }
    this.fill = element("div", { class: "bar-fill" });
    this.bar = element(
      "div",
      { class: "bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.fill,
    );
    this.stage = element("span", { class: "job-stage" });
    this.left = element("span", { class: "job-left" });
    this.cancel = element(
      "button",
      { type: "button", class: "small", "aria-label": `Cancel: ${video.prompt}`, onclick: () => this.#cancel(cancel) },
      "Cancel",
    );
    this.root = element(
      "li",
      { class: "job", "data-id": video.id },
      this.picture,
      element("div", { class: "job-head" }, this.prompt, this.cancel),
      element(
        "div",
        { class: "job-body" },
        this.parts,
        this.bar,
        element("p", { class: "job-words" }, this.stage, this.left),
      ),
    );
    if (video.images.length > 0) this.show(imageUrl(video.id, 0));
    this.leave = everySecond(() => this.#count());
  }

  update(video) {
    this.video = video;
    const running = video.status === "in_progress";
    this.root.classList.toggle("running", running);
    show(this.parts, running);
    show(this.bar, running);
    this.#showPart(video);
    this.bar.setAttribute("aria-valuenow", video.progress);
    this.bar.setAttribute("aria-valuetext", `${video.progress} %, ${this.#stageWords(video)}`);
    this.bar.classList.toggle("unknown", running && video.progress === 0);
    this.fill.style.width = `${video.progress}%`;
    setText(this.stage, running ? this.#stageWords(video) : waitingWords(video));
    this.#count();
  }

  // A preview, or the image that the video begins with.
  show(url) {
    const shown = this.picture.querySelector("img");
    if (shown) shown.src = url;
    else this.picture.replaceChildren(element("img", { src: url, alt: "" }));
  }

  #showPart({ stage, settings }) {
    const now = stage === null ? -1 : partsOf(settings.pipeline).indexOf(partOf(stage));
    [...this.parts.children].forEach((item, place) => {
      item.classList.toggle("done", place < now);
      if (place === now) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  }

  #stageWords({ stage, step, steps, size: asked, seconds }) {
    if (stage === null) return `Beginning · ${size(asked)}, ${trim(Number(seconds), 2)} s`;
    return steps > 0 ? `${stageWords(stage)}, step ${step} of ${steps}` : stageWords(stage);
  }

  #count() {
    const left = secondsLeft(this.video);
    const running = this.video.status === "in_progress";
    const words = left === null ? "" : running ? `${about(left)} left` : `ready in ${about(left)}`;
    setText(this.left, running ? [`${this.video.progress} %`, words].filter(Boolean).join(" · ") : words);
  }

  async #cancel(cancel) {
    this.cancel.setAttribute("aria-disabled", "true");
    setText(this.cancel, "Cancelling…");
    const done = await cancel(this.video.id);
    if (done) return;
    this.cancel.removeAttribute("aria-disabled");
    setText(this.cancel, "Cancel");
  }
}

function waitingWords({ queue_position: position, size: asked, seconds }) {
  const place = position === null ? "Waiting" : position === 1 ? "Next in line" : `Number ${position} in line`;
  return `${place} · ${size(asked)}, ${trim(Number(seconds), 2)} s`;
}
