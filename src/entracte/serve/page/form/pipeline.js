// What a pipeline is, in words, and which controls it leaves open.

import { byId, setText } from "../base/dom.js";

const MEANINGS = {
  "two-stage": "The first act at half size, then a short second act at full size.",
  "one-stage": "One act at full size, with the base checkpoint alone.",
  distilled: "Two short acts with a fixed number of steps and no guidance. Needs a distilled checkpoint.",
};

export function describePipeline(controls, defaults) {
  const pipeline = controls.pipeline.value || defaults.pipeline;
  setText(byId("pipeline-hint"), MEANINGS[pipeline] ?? "");
  const fixed = pipeline === "distilled";
  controls.num_inference_steps.disabled = fixed;
  controls.num_inference_steps.placeholder = fixed ? "fixed" : defaults.num_inference_steps;
}
