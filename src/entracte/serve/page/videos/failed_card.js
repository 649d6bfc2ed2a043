// A video that failed or was cancelled: why, and what can be done.

import { element } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { wasCancelled } from "../service/videos.js";
import { actionButton, cardBody, timeOf } from "./card_parts.js";

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
