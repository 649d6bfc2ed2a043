// The cards of videos that have ended.

import { contentUrl, downloadUrl, imageUrl } from "./api.js";
import { element, everySecond, icon, setText } from "./dom.js";
import { wasCancelled } from "./store.js";
import { ago, bytes, duration, moment, size, trim } from "./words.js";

// The text below the picture. time: of `timeOf`.
function cardBody(video, time, ...buttons) {
  return element(
    "div",
    { class: "card-body" },
    element("h3", { class: "card-prompt", title: video.prompt }, video.prompt),
    element(
      "p",
      { class: "meta" },
      element("span", {}, `${size(video.size)} · ${trim(Number(video.seconds), 1)} s`),
      time.root,
    ),
    warnings(video),
    element("div", { class: "actions" }, ...buttons),
    details(video),
  );
}

// How long ago the video was requested, kept up to date. Returns {root, leave}.
function timeOf({ created_at }) {
  const root = element("time", {
    datetime: new Date(created_at * 1000).toISOString(),
    title: moment(created_at),
  });
  const tell = () => setText(root, ago(created_at));
  tell();
  return { root, leave: everySecond(tell) };
}

// Tells screen readers which video a button belongs to.
function actionButton(picture, label, name, act, { words = null } = {}) {
  return element(
    "button",
    {
      type: "button",
      class: words ? "button" : "button icon-only",
      title: label,
      "aria-label": `${label}: ${name}`,
      onclick: act,
    },
    icon(picture),
    words ? element("span", {}, words) : null,
  );
}

// How the video may differ from the request.
function warnings(video) {
  if (video.warnings.length === 0) return null;
  return element(
    "ul",
    { class: "warnings" },
    ...video.warnings.map(({ lora, message, keys }) =>
      element("li", { title: keys.join("\n") }, `${lora}: ${message}`),
    ),
  );
}

function details(video) {
  const list = element("dl", {});
  for (const [term, words] of rows(video)) {
    list.append(element("dt", {}, term), element("dd", {}, words));
  }
  const fold = element("details", { class: "details" }, element("summary", {}, "Details"), list);
  if (video.images.length > 0) {
    // Fetched on demand, not for every card of the gallery.
    fold.addEventListener("toggle", () => fold.append(pictures(video)), { once: true });
  }
  return fold;
}

function rows(video) {
  const { settings, stage_durations: stages } = video;
  const loras = (settings.loras ?? []).map(({ name, strength }) => `${name} ${strength}`);
  return [
    ["Prompt", video.prompt],
    ["Negative", settings.negative_prompt],
    ["Seed", String(video.seed)],
    ["Frames", `${video.num_frames} at ${trim(video.fps, 2)} a second`],
    ["Pipeline", settings.pipeline],
    ["Steps", settings.num_inference_steps && String(settings.num_inference_steps)],
    ["LoRAs", loras.join(", ")],
    ["Rendered", video.render_size === video.size ? null : size(video.render_size)],
    ["File", video.bytes && bytes(video.bytes)],
    ["Memory", video.peak_memory_mb && `${bytes(video.peak_memory_mb * 2 ** 20)} at the peak`],
    ["Made in", madeIn(stages)],
    ["Of which", longest(stages)],
    ["Kept until", video.expires_at && moment(video.expires_at)],
    ["Id", video.id],
  ].filter(([, words]) => words);
}

function madeIn(stages) {
  const seconds = Object.values(stages).reduce((sum, each) => sum + each, 0);
  return seconds > 0 ? duration(seconds) : null;
}

// The stages that count, in their order.
function longest(stages) {
  const some = Object.entries(stages).filter(([, seconds]) => seconds >= 0.05);
  return some.map(([name, seconds]) => `${name} ${duration(seconds)}`).join(", ");
}

function pictures(video) {
  return element(
    "ul",
    { class: "pictures" },
    ...video.images.map((image, number) =>
      element(
        "li",
        {},
        element("img", { src: imageUrl(video.id, number), alt: `Image at frame ${image.frame}` }),
        element("span", {}, `frame ${image.frame}, ${Math.round(image.strength * 100)} %`),
      ),
    ),
  );
}

// A finished video, which plays in its card.

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
    // Playing this video pauses the others.
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
            download: "", // under the name from the service
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
    this.player.play().catch(() => {}); // the player's "error" event says why not
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

// A video that failed or was cancelled: why, and what can be done.
export class FailedCard {
  // actions: {retry, reuse, remove}, each called with the video.
  constructor(video, actions) {
    const cancelled = wasCancelled(video);
    const again = cancelled ? "Make it" : "Try again";
    const name = video.prompt;
    this.time = timeOf(video);
    this.root = element(
      "li",
      { class: cancelled ? "card cancelled" : "card failed", "data-id": video.id },
      element(
        "div",
        { class: "stage words" },
        icon(cancelled ? "close" : "alert"),
        element("p", {}, cancelled ? "Cancelled" : (video.error?.message ?? "It failed.")),
      ),
      cardBody(
        video,
        this.time,
        actionButton("again", again, name, () => actions.retry(video), { words: again }),
        actionButton("settings", "Reuse settings", name, () => actions.reuse(video)),
        actionButton("remove", "Delete", name, () => actions.remove(video)),
      ),
    );
  }

  update() {}

  leave() {
    this.time.leave();
  }
}
