// The colours of components, the same as in the report of a run.

const COMPONENTS = {
  transformer: "#2f6fb0",
  text_encoder: "#e69f00",
  connectors: "#cc79a7",
  video_vae: "#009e73",
  audio_vae: "#f0d83c",
  vocoder: "#d55e00",
  upsampler: "#56b4e9",
};
const OTHERS = ["#6a3d9a", "#b9a77c", "#44505c"];

export const WORKING = "#8b95a1";

export function colourOf(component, unknown) {
  return COMPONENTS[component] ?? OTHERS[Math.max(0, unknown.indexOf(component)) % OTHERS.length];
}

export function isKnown(component) {
  return component in COMPONENTS;
}
