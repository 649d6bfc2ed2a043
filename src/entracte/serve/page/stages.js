// A video comes about in parts: the words, the first act, the interval, the second act, and the
// decoding. The service's stages are finer; here is which part each belongs to, and its words.

const PARTS = {
  prepare: "Prepare",
  act1: "Act 1",
  interval: "Interval",
  act2: "Act 2",
  finish: "Finish",
};

const STAGES = {
  "load weights": ["prepare", "Bringing the weights"],
  "encode text": ["prepare", "Reading the prompt"],
  "connect text": ["prepare", "Reading the prompt"],
  "encode images (stage1)": ["prepare", "Encoding the images"],
  "switch to stage1": ["prepare", "Switching to the first act"],
  denoise: ["act1", "Denoising"],
  upsample: ["interval", "Enlarging"],
  "encode images (stage2)": ["interval", "Encoding the images"],
  "switch to stage2": ["interval", "Switching to the second act"],
  refine: ["act2", "Refining"],
  "decode audio": ["finish", "Decoding the sound"],
  "decode video": ["finish", "Decoding the picture"],
  mux: ["finish", "Writing the file"],
};

// Names of the parts that a pipeline has, in their order.
export function partsOf(pipeline) {
  const keys = Object.keys(PARTS);
  return pipeline === "one-stage" ? keys.filter((key) => !["interval", "act2"].includes(key)) : keys;
}

export function partWords(part) {
  return PARTS[part];
}

// The part that a stage belongs to; the first for one that is not known.
export function partOf(stage) {
  return STAGES[stage]?.[0] ?? "prepare";
}

export function stageWords(stage) {
  return STAGES[stage]?.[1] ?? (stage.charAt(0).toUpperCase() + stage.slice(1));
}
