// The stages of a video, as the service lists them: their words, and the acts that they belong to.

export class Stages {
  #known; // by id, in the order of the work

  constructor(list) {
    this.#known = new Map(list.map((stage) => [stage.id, stage]));
  }

  // The acts of a pipeline, in order.
  acts(pipeline) {
    const stages = [...this.#known.values()].filter(({ pipelines }) => pipelines.includes(pipeline));
    return [...new Set(stages.map(({ act }) => act))];
  }

  // The act that every video begins with.
  get opening() {
    return this.#known.values().next().value.act;
  }

  // The act that a stage belongs to; the opening one for an unknown stage.
  actOf(stage) {
    return this.#known.get(stage)?.act ?? this.opening;
  }

  words(stage) {
    return this.#known.get(stage)?.label ?? stage.charAt(0).toUpperCase() + stage.slice(1);
  }
}
