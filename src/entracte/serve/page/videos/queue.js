// The queue: what is being made, and what waits.

import { announce } from "../base/announce.js";
import { byId, setText, show } from "../base/dom.js";
import { KeyedList } from "../base/keyed_list.js";
import { toast } from "../base/toast.js";
import { api } from "../service/api.js";
import { QueueCard } from "./queue_card.js";

export class Queue {
  constructor(videos) {
    this.videos = videos;
    this.list = new KeyedList(
      byId("jobs"),
      (video) => new QueueCard(video, (id) => this.#cancel(id)),
      byId("queue-title"),
    );
    videos.addEventListener("change", () => this.#render());
  }

  preview({ id, image }) {
    this.list.views.get(id)?.show(image);
  }

  #render() {
    const active = this.videos.active();
    this.list.render(active);
    show(byId("queue-empty"), active.length === 0);
    const running = active.filter((video) => video.status === "in_progress").length;
    const waiting = active.length - running;
    const words = [running && `${running} in the making`, waiting && `${waiting} waiting`];
    setText(byId("queue-words"), words.filter(Boolean).join(", "));
  }

  async #cancel(id) {
    try {
      this.videos.put(await api.cancel(id));
      announce("The video is being cancelled.");
      return true;
    } catch (error) {
      toast(error.message, { error: true });
      return false;
    }
  }
}
