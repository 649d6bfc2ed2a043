// A video that is there: it plays here.

import { element, setText } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { contentUrl, downloadUrl } from "../service/api.js";
import { actionButton, cardBody, timeOf } from "./card_parts.js";

const WIDE = 16 / 9; // the shape of a card's stage

export class GalleryCard {
  // actions: {reuse, reuseSeed, remove}, each called with the video.
  constructor(video, actions) {
    this.player = element("video", {
      controls: true,
      playsinline: true,
      loop: true,
      preload: "none",
      width: video.width,
      height: video.height,
      src: contentUrl(video.id),
      poster: contentUrl(video.id, "thumbnail"),
      "aria-label": video.prompt,
    });
    this.player.classList.add("fresh");
    this.error = element("p", { class: "card-error", role: "alert", hidden: true });
    const name = video.prompt;
    // Chromium does not start a video of which nothing is loaded when its picture is clicked.
    const play = element("button", {
      type: "button",
      class: "play",
      "aria-label": `Play: ${name}`,
      onclick: () => this.#play(),
    });
    // Other videos fall silent when this one speaks.
    this.player.addEventListener("play", () => {
      // The button goes, and the focus with it: the player's own controls go on from there.
      if (document.activeElement === play) this.player.focus();
      this.player.classList.remove("fresh");
      pauseOthers(this.player);
    });
    this.player.addEventListener("error", () => this.#failed());
    this.time = timeOf(video);
    this.root = element(
      "li",
      { class: "card", "data-id": video.id },
      element("div", { class: "stage" }, backdrop(video), this.player, play, this.error),
      cardBody(
        video,
        this.time,
        actionButton("settings", "Reuse settings", name, () => actions.reuse(video), { words: "Reuse" }),
        actionButton("seed", "Reuse seed", name, () => actions.reuseSeed(video)),
        element(
          "a",
          {
            class: "button icon-only",
            href: downloadUrl(video.id),
            download: "", // under the name that the service gives it
            title: "Download",
            "aria-label": `Download: ${name}`,
          },
          icon("download"),
        ),
        actionButton("remove", "Delete", name, () => actions.remove(video)),
      ),
    );
  }

  update() {}

  leave() {
    this.time.leave();
    // Let go of the connection that a playing video keeps.
    this.player.removeAttribute("src");
    this.player.load();
  }

  #play() {
    if (this.player.error) this.player.load();
    this.player.play().catch(() => {}); // why not is told by the player's "error"
  }

  #failed() {
    if (!this.player.hasAttribute("src")) return;
    this.player.classList.add("fresh"); // to try again
    setText(this.error, "This video cannot be played. The server may be away, or the file gone.");
    this.error.hidden = false;
    this.player.addEventListener("loadeddata", () => (this.error.hidden = true), { once: true });
  }
}

function backdrop({ id, width, height }) {
  if (Math.abs(width / height - WIDE) < 0.1) return null;
  return element("img", { class: "backdrop", src: contentUrl(id, "thumbnail"), alt: "" });
}

function pauseOthers(player) {
  for (const other of document.querySelectorAll("video")) {
    if (other !== player) other.pause();
  }
}
