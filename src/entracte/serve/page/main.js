// The page: signs in, then shows the service's videos and keeps them up to date.

import { api } from "./api.js";
import { byId, inView, show } from "./dom.js";
import { connectionBanner, EventStream } from "./events.js";
import { VideoForm } from "./form.js";
import { Deletion, Gallery, Reuse } from "./gallery.js";
import { Machine } from "./machine.js";
import { Milestones, Queue } from "./queue.js";
import { SignIn, takeKeyFromAddress } from "./sign_in.js";
import { Stages } from "./stages.js";
import { Listing, Videos } from "./store.js";
import { announce, toast } from "./toast.js";

// After events, the queued videos are read again: soon if the queue has changed, else later.
const CHANGED_MS = 700;
const DRIFTED_MS = 4000;

const RENDERED_MS = 60; // by then a change of the videos can be seen

class Page {
  constructor() {
    this.videos = new Videos();
    this.listing = new Listing(this.videos);
    this.stream = new EventStream();
    this.banner = connectionBanner(this.stream);
    this.signIn = new SignIn(() => this.#enter());
    this.parts = null; // made once the limits, stages and fields of the service are known
    this.keyed = false; // whether the service asks for a key
    this.queue = ""; // its last state, to see changes
    this.queueTimer = null;
  }

  async open() {
    this.#listen();
    const key = takeKeyFromAddress();
    const session = await this.banner.untilAnswered(() => api.session());
    this.keyed = session.needed;
    if (session.needed && key !== null && (await this.signIn.try(key))) session.signed_in = true;
    if (session.signed_in) this.#enter();
    else this.#leave(key === null ? null : "This API key is not known.");
  }

  async #enter() {
    const asked = () => Promise.all([api.engine(), api.stages(), api.fields()]);
    const [engine, stages, fields] = await this.banner.untilAnswered(asked).catch(() => [null]);
    if (engine === null) return; // it asks for a key after all, which is shown
    show(byId("sign-out"), this.keyed);
    show(byId("skip"), true);
    show(byId("work"), true);
    this.parts ??= this.#makeParts(engine, new Stages(stages), fields);
    this.parts.machine.update(engine);
    this.parts.form.open();
    this.stream.start();
  }

  #leave(words = null) {
    this.stream.stop();
    this.banner.hide();
    this.videos.clear();
    for (const id of ["work", "skip", "engine-status"]) show(byId(id), false);
    show(byId("sign-out"), false);
    this.signIn.open(words);
  }

  #makeParts(engine, stages, fields) {
    const created = (video) => this.#created(video);
    const form = new VideoForm(engine, fields, created);
    const reuse = new Reuse(form, created);
    const deletion = new Deletion(this.videos);
    const actions = {
      reuse: (video) => reuse.settings(video),
      reuseSeed: (video) => reuse.seed(video),
      retry: (video) => reuse.retry(video),
      remove: (video) => deletion.begin(video),
      example: (words) => form.setPrompt(words),
    };
    return {
      form,
      deletion,
      machine: new Machine(stages),
      queue: new Queue(this.videos, stages),
      gallery: new Gallery(this.videos, this.listing, actions, engine.examples),
      milestones: new Milestones(this.videos, stages),
    };
  }

  #listen() {
    api.addEventListener("signed-out", () => {
      if (!byId("work").hidden) this.#leave("You are signed out. Enter the key again.");
    });
    this.stream.addEventListener("open", () => this.#refresh());
    this.stream.addEventListener("event", ({ detail }) => this.#receive(detail));
    byId("sign-out").addEventListener("click", async () => {
      this.parts.deletion.flush();
      await api.signOut().catch(() => {});
      this.#leave();
      this.parts.form.forget();
      location.reload(); // leaves nothing for the next user
    });
    // The address with a key in it, opened in a tab that is here already.
    addEventListener("hashchange", () => {
      if (new URLSearchParams(location.hash.slice(1)).has("key")) location.reload();
    });
  }

  // Events come from now on; a listing has what was before.
  async #refresh() {
    try {
      await this.listing.refresh();
      this.parts.gallery.complain(null);
    } catch (error) {
      this.parts.gallery.complain(`The videos could not be listed. ${error.message}`);
    }
  }

  #receive({ kind, data }) {
    if (kind === "video") {
      this.parts.milestones.note(data, this.videos.get(data.id));
      this.videos.put(data);
      this.#scheduleRefresh();
    } else if (kind === "deleted") {
      this.videos.remove(data.id);
    } else if (kind === "preview") {
      this.parts.queue.preview(data);
    } else if (kind === "engine") {
      this.#receiveEngine(data);
    }
  }

  #receiveEngine(engine) {
    this.parts.machine.update(engine);
    const queue = `${engine.status} ${engine.queue.queued} ${engine.queue.running}`;
    if (queue !== this.queue) {
      this.queue = queue;
      this.parts.form.estimateAgain();
      clearTimeout(this.queueTimer);
      this.queueTimer = setTimeout(() => this.#refreshQueue(), CHANGED_MS);
    }
    this.#scheduleRefresh();
  }

  // When a queued video will be ready depends on all before it, so all are read at once.
  #scheduleRefresh() {
    this.queueTimer ??= setTimeout(() => this.#refreshQueue(), DRIFTED_MS);
  }

  #refreshQueue() {
    this.queueTimer = null;
    if (this.videos.active().some((video) => video.status === "queued")) this.#refresh();
  }

  #created(video) {
    if (!this.videos.get(video.id)) this.videos.put(video);
    setTimeout(() => this.#announceQueued(video.id), RENDERED_MS);
  }

  #announceQueued(id) {
    const words = "The video is in the queue.";
    const card = document.querySelector(`.job[data-id="${CSS.escape(id)}"]`);
    if (card !== null && inView(card)) announce(words);
    else toast(words, { action: "Show", act: () => this.#showQueue() });
  }

  #showQueue() {
    byId("queue-title").focus({ preventScroll: true });
    byId("queue-title").scrollIntoView({ block: "start" });
  }
}

new Page().open();
