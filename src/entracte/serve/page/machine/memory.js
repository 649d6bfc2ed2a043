// A worker's memory as this page shows it: who has how much, on the device and in the host.

import { colourOf, isKnown, WORKING } from "./colours.js";

const NAMES = {
  transformer: "Transformer",
  text_encoder: "Text encoder",
  connectors: "Connectors",
  video_vae: "Video VAE",
  audio_vae: "Audio VAE",
  vocoder: "Vocoder",
  upsampler: "Upsampler",
};

const CONTENTS = { base: "base weights", merged: "merged weights", factors: "LoRA factors", empty: "no weights yet" };

// {parts: [{name, colour, device, host, content}], used, total}; total is null on a CPU.
export function memoryOf(worker) {
  const rows = worker.memory;
  const components = [...new Set(rows.map((row) => row.component))];
  components.sort((one, other) => rank(one) - rank(other));
  const unknown = components.filter((component) => !isKnown(component));
  const parts = components.map((component) => {
    const mine = rows.filter((row) => row.component === component);
    return {
      name: NAMES[component] ?? component,
      colour: colourOf(component, unknown),
      device: sum(mine.filter((row) => row.where === "device")),
      host: sum(mine.filter((row) => row.where !== "device")),
      content: contentWords(mine),
    };
  });
  const weights = parts.reduce((all, part) => all + part.device, 0);
  const onCpu = worker.device_total_bytes === null;
  const used = Math.max(weights, (onCpu ? worker.host_used_bytes : worker.device_used_bytes) ?? 0);
  if (used > weights) {
    parts.push({ name: "Everything else", colour: WORKING, device: used - weights, host: 0, content: "" });
  }
  return { parts, used, total: worker.device_total_bytes };
}

// The order of the pipeline's report; others come behind.
function rank(component) {
  const place = Object.keys(NAMES).indexOf(component);
  return place < 0 ? 99 : place;
}

// Base weights alone are the usual case, of which nothing is said.
function contentWords(rows) {
  const contents = [...new Set(rows.map((row) => row.content))];
  if (contents.length === 1 && contents[0] === "base") return "";
  return contents.map((content) => CONTENTS[content] ?? content).join(" and ");
}

function sum(rows) {
  return rows.reduce((all, row) => all + row.bytes, 0);
}
