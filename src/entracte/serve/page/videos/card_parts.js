// What the cards of finished and of failed videos have in common.

import { element, setText } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { everySecond } from "../base/ticker.js";
import { ago, bytes, duration, moment, size, trim } from "../base/words.js";
import { imageUrl } from "../service/api.js";

// What stands below the picture. time: of `timeOf`.
export function cardBody(video, time, ...buttons) {
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

// How long ago it was asked for, kept true. Returns {root, leave}.
export function timeOf({ created_at }) {
  const root = element("time", {
    datetime: new Date(created_at * 1000).toISOString(),
    title: moment(created_at),
  });
  const tell = () => setText(root, ago(created_at));
  tell();
  return { root, leave: everySecond(tell) };
}

// Screen readers hear which video a button is of; eyes see where it stands.
export function actionButton(picture, label, name, act, { words = null } = {}) {
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

// In what the video may not be what was asked for.
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
    // Fetched when somebody looks, not for every card of the gallery.
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
