// Reads the service's list of videos into the store, page by page.

import { api } from "./api.js";
import { isOver } from "./videos.js";

const PAGE = 24;
const MOST = 100; // that the service gives at once

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
