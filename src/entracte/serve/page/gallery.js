// The gallery: finished videos, newest first, and their actions.

import { api, newIdempotencyKey, requestForm } from "./api.js";
import { FailedCard, GalleryCard } from "./card.js";
import { byId, element, icon, KeyedList, setText, show } from "./dom.js";
import { announce, toast } from "./toast.js";
import { count, shortened } from "./words.js";

// Offered where none come with the model.
const EXAMPLES = [
  "A lighthouse at dusk, waves breaking on the rocks, a foghorn far away",
  "A red tram climbs a steep street in the rain, its bell rings twice",
  "Close-up of a violinist's hands in warm light, playing a slow waltz",
];

export class Gallery {
  // actions: {reuse, reuseSeed, retry, remove, example}. examples: prompts that suit the model.
  constructor(videos, listing, actions, examples) {
    Object.assign(this, { videos, listing });
    const make = (video) =>
      video.status === "completed" ? new GalleryCard(video, actions) : new FailedCard(video, actions);
    this.list = new KeyedList(byId("cards"), make, byId("gallery-title"));
    this.more = byId("more");
    this.more.addEventListener("click", () => this.#showMore());
    this.invitation = invitation(actions.example, examples.length ? examples : EXAMPLES);
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

  // Until the first listing arrives.
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
      // Keyboard users continue at the first of the new ones.
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

function invitation(example, examples) {
  return element(
    "div",
    { class: "invitation" },
    element("p", {}, "Say what the video should show and sound like. Or begin with one of these:"),
    element(
      "ul",
      { class: "examples" },
      ...examples.map((words) =>
        element("li", {}, element("button", { type: "button", onclick: () => example(words) }, words)),
      ),
    ),
  );
}

// Uses a video's settings again: in the form, or as they are.
export class Reuse {
  // form: the VideoForm. created: called with a video that was asked for again.
  constructor(form, created) {
    Object.assign(this, { form, created });
  }

  async settings(video) {
    try {
      this.form.reuse({ ...video.settings, prompt: video.prompt }, await imagesOf(video));
    } catch (error) {
      toast(`Its images could not be fetched. ${error.message}`, { error: true });
      return;
    }
    toast("Settings copied into the form, with a random seed.", {
      action: "Use its seed too",
      act: () => this.seed(video),
    });
  }

  seed(video) {
    this.form.setSeed(video.seed);
    announce(`The seed is ${video.seed}.`);
  }

  // The same request, seed included.
  async retry(video) {
    try {
      const images = await imagesOf(video);
      const fields = { ...video.settings, prompt: video.prompt };
      const said = images.map(({ frame, strength, crf }) => ({ frame, strength, crf }));
      const form = requestForm(fields, images.map(({ file }) => file), said);
      this.created(await api.create(form, newIdempotencyKey()));
    } catch (error) {
      toast(error.message, { error: true });
    }
  }
}

// The images as files, with their frames.
function imagesOf(video) {
  return Promise.all(
    video.images.map(async (place, number) => {
      const blob = await api.image(video.id, number);
      const file = new File([blob], `image-${number + 1}.png`, { type: blob.type });
      return { ...place, file };
    }),
  );
}

// Deletes videos. For a few seconds that can be undone; only then is the service called.

const SECONDS = 7;

export class Deletion {
  #pending = new Map(); // id -> toast, the last one last

  constructor(videos) {
    this.videos = videos;
    // A deletion must not be lost because the page was left too soon.
    addEventListener("pagehide", () => this.flush());
    document.addEventListener("keydown", (event) => this.#undoByKey(event));
  }

  begin({ id, prompt }) {
    this.videos.hide(id);
    const notice = toast(`Deleted: ${shortened(prompt)}`, {
      action: "Undo",
      seconds: SECONDS,
      ended: (undone) => this.#end(id, undone),
    });
    this.#pending.set(id, notice);
  }

  #end(id, undone) {
    this.#pending.delete(id);
    if (!undone) {
      this.#remove(id);
      return;
    }
    this.videos.unhide(id);
    announce("The video is back.");
  }

  async #remove(id) {
    try {
      await api.remove(id);
      this.videos.remove(id);
    } catch (error) {
      if (error.status === 404) {
        this.videos.remove(id);
        return;
      }
      this.videos.unhide(id);
      toast(`It was not deleted. ${error.message}`, { error: true });
    }
  }

  // Sends all pending deletions at once, without waiting.
  flush() {
    for (const id of this.#pending.keys()) api.remove(id, true).catch(() => {});
    this.#pending.clear();
  }

  #undoByKey(event) {
    const typing = event.target.matches?.("input, textarea, select");
    const asked = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    const last = [...this.#pending.values()].at(-1);
    if (!asked || typing || !last) return;
    event.preventDefault();
    last.act();
  }
}
