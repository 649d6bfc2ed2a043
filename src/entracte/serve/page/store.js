// The videos that this page knows, and the listings that they come from.

import { api } from "./api.js";

// The videos that this page knows, the newest first. Dispatches "change" when they change.
export class Videos extends EventTarget {
  #known = new Map();
  #order = []; // ids, the newest first
  #hidden = new Set(); // about to be deleted, unless that is taken back
  #listings = new Set(); // of each that is being read, the ids that changed since: they are newer
  #due = false;

  get(id) {
    return this.#known.get(id);
  }

  get size() {
    return this.#order.length;
  }

  all() {
    return this.#order.filter((id) => !this.#hidden.has(id)).map((id) => this.#known.get(id));
  }

  // The running videos, then the queued ones in their order.
  active() {
    const place = (video) => (video.status === "in_progress" ? 0 : (video.queue_position ?? 1e9));
    return this.all()
      .filter((video) => !isOver(video))
      .reverse()
      .sort((one, other) => place(one) - place(other));
  }

  over() {
    return this.all().filter(isOver);
  }

  // A video as an event or an answer has it.
  put(video) {
    for (const changed of this.#listings) changed.add(video.id);
    this.#store(video, false);
    this.#change();
  }

  remove(id) {
    for (const changed of this.#listings) changed.add(id);
    this.#forget(id);
    this.#change();
  }

  hide(id) {
    this.#hidden.add(id);
    this.#change();
  }

  unhide(id) {
    this.#hidden.delete(id);
    this.#change();
  }

  clear() {
    this.#known.clear();
    this.#order = [];
    this.#hidden.clear();
    this.#change();
  }

  // Asks for a listing, and takes it in. `ask` resolves to {data}. complete: it has everything
  // down to its last one, so what is not in it is gone.
  async read(ask, { complete = false } = {}) {
    const changed = new Set();
    this.#listings.add(changed);
    try {
      const { data } = await ask();
      if (complete) this.#forgetMissing(data, changed);
      for (const video of data) {
        if (!changed.has(video.id)) this.#store(video, true);
      }
      this.#change();
    } finally {
      this.#listings.delete(changed);
    }
  }

  #forgetMissing(list, changed) {
    const listed = new Set(list.map((video) => video.id));
    for (const id of [...this.#order]) {
      if (!listed.has(id) && !changed.has(id)) this.#forget(id);
    }
  }

  #store(video, listed) {
    // Responses may overtake each other; a finished video stays finished.
    if (this.#known.has(video.id) && isOver(this.#known.get(video.id)) && !isOver(video)) return;
    // Its times count from when it was received.
    if (!this.#known.has(video.id)) this.#insert(video, listed);
    this.#known.set(video.id, { ...video, received_at: performance.now() });
  }

  // Of those of the same second, the one received later is newer, but listings go backwards.
  #insert(video, listed) {
    const older = (id) => {
      const other = this.#known.get(id).created_at;
      return listed ? other < video.created_at : other <= video.created_at;
    };
    const place = this.#order.findIndex(older);
    this.#order.splice(place < 0 ? this.#order.length : place, 0, video.id);
  }

  #forget(id) {
    this.#known.delete(id);
    this.#hidden.delete(id);
    this.#order = this.#order.filter((each) => each !== id);
  }

  // Once a frame, however many changes there were.
  #change() {
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => {
      this.#due = false;
      this.dispatchEvent(new Event("change"));
    }, 16);
  }
}

export function isOver(video) {
  return video.status === "completed" || video.status === "failed";
}

export function wasCancelled(video) {
  return video.status === "failed" && video.error?.code === "cancelled";
}

// Seconds until it is ready, counted from now; null if unknown.
export function secondsLeft(video) {
  if (video.eta_s === null) return null;
  return Math.max(0, video.eta_s - (performance.now() - video.received_at) / 1000);
}

// Reads the service's list of videos into the store, page by page.

const PAGE = 24;
const MOST = 100; // per page of the service

export class Listing {
  #last = null; // the id that the next page follows
  hasMore = false;

  constructor(videos) {
    this.videos = videos;
  }

  // The newest, at least as many as are shown already, and all that wait or are being made.
  async refresh(wanted = Math.max(PAGE, this.videos.size)) {
    await this.videos.read(
      async () => {
        const data = [];
        let after = null;
        let page;
        do {
          page = await api.videos({ limit: Math.min(MOST, wanted), after });
          data.push(...page.data);
          after = page.last_id;
        } while (page.has_more && (data.length < wanted || !page.data.every(isOver)));
        this.#end(page);
        return { data };
      },
      { complete: true },
    );
  }

  async more() {
    try {
      await this.videos.read(async () => {
        const page = await api.videos({ limit: PAGE, after: this.#last });
        this.#end(page);
        return page;
      });
    } catch (error) {
      // The one to go on from may have been deleted meanwhile.
      if (error.status !== 400 && error.status !== 404) throw error;
      await this.refresh(this.videos.size + PAGE);
    }
  }

  #end(page) {
    this.#last = page.last_id ?? this.#last;
    this.hasMore = page.has_more;
  }
}
