// The queue: running and queued videos, and announcements about them.

import { api, imageUrl } from "./api.js";
import { byId, element, everySecond, icon, inView, KeyedList, setText, show } from "./dom.js";
import { isOver, secondsLeft, wasCancelled } from "./store.js";
import { announce, toast } from "./toast.js";
import { about, shortened, size, trim } from "./words.js";

// A video that waits or is being made.
class QueueCard {
  // cancel: called with the id.
  constructor(video, stages, cancel) {
    this.stages = stages;
    this.picture = element("div", { class: "job-picture", "aria-hidden": "true" }, icon("film"));
    this.prompt = element("h3", { class: "job-prompt" }, video.prompt);
    this.acts = element("ol", { class: "acts", "aria-label": "Parts of the work" });
    for (const act of stages.acts(video.settings.pipeline)) this.acts.append(element("li", {}, act));
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
        this.acts,
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
    show(this.acts, running);
    show(this.bar, running);
    this.#showAct(video);
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

  #showAct({ stage, settings }) {
    const now = stage === null ? -1 : this.stages.acts(settings.pipeline).indexOf(this.stages.actOf(stage));
    [...this.acts.children].forEach((item, place) => {
      item.classList.toggle("done", place < now);
      if (place === now) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  }

  #stageWords({ stage, step, steps, size: asked, seconds }) {
    if (stage === null) return `Beginning · ${size(asked)}, ${trim(Number(seconds), 2)} s`;
    const words = this.stages.words(stage);
    return steps > 0 ? `${words}, step ${step} of ${steps}` : words;
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

// The queue: what is being made, and what waits.
export class Queue {
  constructor(videos, stages) {
    this.videos = videos;
    this.list = new KeyedList(
      byId("jobs"),
      (video) => new QueueCard(video, stages, (id) => this.#cancel(id)),
      byId("queue-title"),
    );
    videos.addEventListener("change", () => this.#render());
  }

  preview({ id, image }) {
    this.list.views.get(id)?.show(image);
  }

  #render() {
    const active = this.videos.active();
    this.list.render(active);
    show(byId("queue-empty"), active.length === 0);
    const running = active.filter((video) => video.status === "in_progress").length;
    const waiting = active.length - running;
    const words = [running && `${running} in the making`, waiting && `${waiting} waiting`];
    setText(byId("queue-words"), words.filter(Boolean).join(", "));
  }

  async #cancel(id) {
    try {
      this.videos.put(await api.cancel(id));
      announce("The video is being cancelled.");
      return true;
    } catch (error) {
      toast(error.message, { error: true });
      return false;
    }
  }
}

// Announces the important moments of a video, and shows the state in the title of the page.

const NAME = "Entracte";

export class Milestones {
  #acts = new Map(); // of running videos: the act that was announced last
  #unseen = ""; // what became ready or failed while the page was hidden

  constructor(videos, stages) {
    this.videos = videos;
    this.stages = stages;
    videos.addEventListener("change", () => this.#showTitle());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#unseen = "";
      this.#showTitle();
    });
  }

  // before: what was known of the video, if anything.
  note(video, before) {
    if (before && isOver(video) && !isOver(before)) this.#ended(video);
    else if (video.status === "in_progress" && video.stage !== null) this.#entered(video);
  }

  #ended(video) {
    this.#acts.delete(video.id);
    const name = shortened(video.prompt, 40);
    if (video.status === "completed") notify(`Ready: ${name}`);
    else if (wasCancelled(video)) announce(`Cancelled: ${name}`);
    else notify(`Failed: ${name}. ${video.error?.message ?? ""}`, true);
    if (document.hidden && !wasCancelled(video)) this.#unseen = video.status === "completed" ? "Ready" : "Failed";
  }

  // Not every step, which would drown everything else.
  #entered({ id, stage }) {
    const act = this.stages.actOf(stage);
    if (this.#acts.get(id) === act) return;
    this.#acts.set(id, act);
    if (act !== this.stages.opening) announce(`${act} begins.`);
  }

  #showTitle() {
    const active = this.videos.active();
    const running = active.find((video) => video.status === "in_progress");
    const state = running ? `${running.progress} %` : active.length > 0 ? `${active.length} waiting` : this.#unseen;
    const title = state ? `${state} · ${NAME}` : NAME;
    if (document.title !== title) document.title = title;
  }
}

// A notice where the newest videos are out of sight; it is read aloud, too.
function notify(words, error = false) {
  if (inView(byId("gallery-title"))) announce(words);
  else toast(words, { error });
}
