// The gallery: every video that has ended, the newest first.

import { byId, element, setText, show } from "../base/dom.js";
import { icon } from "../base/icons.js";
import { KeyedList } from "../base/keyed_list.js";
import { count } from "../base/words.js";
import { FailedCard } from "./failed_card.js";
import { GalleryCard } from "./gallery_card.js";

const EXAMPLES = [
  "A lighthouse at dusk, waves breaking on the rocks, a foghorn far away",
  "A red tram climbs a steep street in the rain, its bell rings twice",
  "Close-up of a violinist's hands in warm light, playing a slow waltz",
];

export class Gallery {
  // actions: {reuse, reuseSeed, retry, remove, example}.
  constructor(videos, listing, actions) {
    Object.assign(this, { videos, listing });
    const make = (video) =>
      video.status === "completed" ? new GalleryCard(video, actions) : new FailedCard(video, actions);
    this.list = new KeyedList(byId("cards"), make, byId("gallery-title"));
    this.more = byId("more");
    this.more.addEventListener("click", () => this.#showMore());
    this.invitation = invitation(actions.example);
    byId("gallery-empty").append(
      element("span", { class: "empty-picture", "aria-hidden": "true" }, icon("film")),
      element("h3", {}),
      this.invitation,
    );
    videos.addEventListener("change", () => this.render());
    this.#showLoading();
  }

  render() {
    const over = this.videos.over();
    this.list.render(over);
    show(byId("gallery-empty"), over.length === 0);
    const coming = this.videos.active().length > 0;
    show(this.invitation, !coming);
    setText(byId("gallery-empty").querySelector("h3"), coming ? "The first video will stand here" : "No videos yet");
    show(this.more, this.listing.hasMore);
    const some = this.listing.hasMore ? "the newest " : "";
    setText(byId("gallery-words"), over.length === 0 ? "" : some + count(over.length, "video", "videos"));
  }

  complain(words) {
    setText(byId("gallery-error"), words ?? "");
    show(byId("gallery-error"), Boolean(words));
  }

  // Until the first listing is there.
  #showLoading() {
    const ghosts = Array.from({ length: 3 }, () => element("li", { class: "card ghost", "aria-hidden": "true" }));
    byId("cards").append(...ghosts);
    this.videos.addEventListener("change", () => ghosts.forEach((ghost) => ghost.remove()), { once: true });
  }

  async #showMore() {
    const before = this.list.list.lastElementChild;
    this.more.setAttribute("aria-busy", "true");
    try {
      await this.listing.more();
      this.complain(null);
      this.render();
      // Whoever came by keyboard goes on at the first of the new ones.
      if (document.activeElement === this.more || this.more.hidden) {
        before?.nextElementSibling?.querySelector("button, a")?.focus({ preventScroll: true });
      }
    } catch (error) {
      this.complain(error.message);
    } finally {
      this.more.removeAttribute("aria-busy");
    }
  }
}

function invitation(example) {
  return element(
    "div",
    { class: "invitation" },
    element("p", {}, "Say what the video should show and sound like. Or begin with one of these:"),
    element(
      "ul",
      { class: "examples" },
      ...EXAMPLES.map((words) =>
        element("li", {}, element("button", { type: "button", onclick: () => example(words) }, words)),
      ),
    ),
  );
}
