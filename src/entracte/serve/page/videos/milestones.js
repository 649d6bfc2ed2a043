// Says the important moments of a video aloud, and tells whoever is elsewhere in the title.

import { announce } from "../base/announce.js";
import { byId, inView } from "../base/dom.js";
import { toast } from "../base/toast.js";
import { shortened } from "../base/words.js";
import { isOver, wasCancelled } from "../service/videos.js";
import { partOf, partWords } from "./acts.js";

const NAME = "Entracte";

export class Milestones {
  #parts = new Map(); // of videos in the making: the part that was told last
  #news = ""; // what became ready or failed while nobody looked

  constructor(videos) {
    this.videos = videos;
    videos.addEventListener("change", () => this.#showTitle());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#news = "";
      this.#showTitle();
    });
  }

  // before: what was known of the video, if anything.
  note(video, before) {
    if (before && isOver(video) && !isOver(before)) this.#ended(video);
    else if (video.status === "in_progress" && video.stage !== null) this.#entered(video);
  }

  #ended(video) {
    this.#parts.delete(video.id);
    const name = shortened(video.prompt, 40);
    if (video.status === "completed") tell(`Ready: ${name}`);
    else if (wasCancelled(video)) announce(`Cancelled: ${name}`);
    else tell(`Failed: ${name}. ${video.error?.message ?? ""}`, true);
    if (document.hidden && !wasCancelled(video)) this.#news = video.status === "completed" ? "Ready" : "Failed";
  }

  // Not every step: that would drown everything else.
  #entered({ id, stage }) {
    const part = partOf(stage);
    if (this.#parts.get(id) === part) return;
    this.#parts.set(id, part);
    if (part !== "prepare") announce(`${partWords(part)} begins.`);
  }

  #showTitle() {
    const active = this.videos.active();
    const running = active.find((video) => video.status === "in_progress");
    const state = running ? `${running.progress} %` : active.length > 0 ? `${active.length} waiting` : this.#news;
    const title = state ? `${state} · ${NAME}` : NAME;
    if (document.title !== title) document.title = title;
  }
}

// A notice where the newest videos are out of sight; it is read aloud, too.
function tell(words, error = false) {
  if (inView(byId("gallery-title"))) announce(words);
  else toast(words, { error });
}
