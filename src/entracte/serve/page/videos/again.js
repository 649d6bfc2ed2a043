// Using a video's settings once more: in the form, or as they are.

import { announce } from "../base/announce.js";
import { toast } from "../base/toast.js";
import { newIdempotencyKey, requestForm } from "../form/request.js";
import { api } from "../service/api.js";

export class Again {
  // form: the VideoForm. created: called with a video that was asked for again.
  constructor(form, created) {
    Object.assign(this, { form, created });
  }

  async reuse(video) {
    try {
      this.form.reuse({ ...video.settings, prompt: video.prompt }, await imagesOf(video));
    } catch (error) {
      toast(`Its images could not be fetched. ${error.message}`, { error: true });
      return;
    }
    toast("Settings copied into the form, with a random seed.", {
      action: "Use its seed too",
      act: () => this.reuseSeed(video),
    });
  }

  reuseSeed(video) {
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

// The images as files, with where they stand.
function imagesOf(video) {
  return Promise.all(
    video.images.map(async (place, number) => {
      const blob = await api.image(video.id, number);
      const file = new File([blob], `image-${number + 1}.png`, { type: blob.type });
      return { ...place, file };
    }),
  );
}
