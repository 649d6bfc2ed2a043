// Deleting, which can be taken back for a few seconds: only then is the service told.

import { announce } from "../base/announce.js";
import { toast } from "../base/toast.js";
import { shortened } from "../base/words.js";
import { api } from "../service/api.js";

const SECONDS = 7;

export class Deletion {
  #pending = new Map(); // id -> toast, the last one last

  constructor(videos) {
    this.videos = videos;
    // What was deleted is not to come back because the page was left too soon.
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

  // Tells the service of all at once, without waiting.
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
