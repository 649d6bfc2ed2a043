// The form's plain controls: those whose value goes to the service under their own name.

import { byId, element, setText } from "./dom.js";

const SCALES = [
  ["Prompt (CFG)", "video_cfg_guidance_scale", "audio_cfg_guidance_scale"],
  ["Perturbed (STG)", "video_stg_guidance_scale", "audio_stg_guidance_scale"],
  ["Cross-modal", "a2v_guidance_scale", "v2a_guidance_scale"],
  ["Rescale", "video_rescale_scale", "audio_rescale_scale"],
];
const BLOCKS = ["video_stg_blocks", "audio_stg_blocks"];

const TEXTS = ["negative_prompt", "pipeline"];
const NUMBERS = ["seed", "num_inference_steps", "fps", "guidance_batch", ...SCALES.flatMap((row) => row.slice(1))];
const CHECKS = ["preview", "truncate_prompt"];

// What the form itself sees to be wrong. param: the field at fault, as the service names it.
export class BadInput extends Error {
  constructor(param, message = "This is not a number.") {
    super(message);
    this.param = param;
  }
}

// The fields that were filled in, by the service's names. Raises BadInput.
export function readControls(controls) {
  const fields = { prompt: controls.prompt.value };
  for (const name of TEXTS) {
    if (controls[name].value.trim() !== "") fields[name] = controls[name].value;
  }
  for (const name of NUMBERS) {
    const number = readNumber(controls[name]);
    if (number !== null && !controls[name].disabled) fields[name] = number;
  }
  for (const name of BLOCKS) {
    const list = readList(controls[name]);
    if (list !== null) fields[name] = list;
  }
  for (const name of CHECKS) {
    if (controls[name].checked) fields[name] = true;
  }
  return fields;
}

// The opposite, for the settings of a video. What is the server's default stays empty.
export function fillControls(controls, settings, defaults) {
  controls.prompt.value = settings.prompt ?? "";
  for (const name of [...TEXTS, ...NUMBERS, ...BLOCKS]) {
    const given = settings[name];
    const usual = given === undefined || given === null || given === defaults[name];
    controls[name].value = usual ? "" : Array.isArray(given) ? given.join(", ") : given;
  }
  for (const name of CHECKS) controls[name].checked = settings[name] === true;
}

// A number, or null where nothing was typed.
export function readNumber(control) {
  if (control.validity.badInput) throw new BadInput(control.name);
  const text = control.value.trim();
  if (text === "") return null;
  // A seed may be too large for a JavaScript number; as text it arrives whole.
  return Number.isSafeInteger(Number(text)) || /[.e]/i.test(text) ? Number(text) : text;
}

function readList(control) {
  const text = control.value.trim();
  if (text === "") return null;
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  if (parts.some((part) => !/^\d+$/.test(part))) {
    throw new BadInput(control.name, "Block numbers are whole numbers with commas between.");
  }
  return parts.map(Number);
}

// The grid of guidance scales: how strongly each influence counts, for picture and sound.

const SCALE_MEANINGS = {
  "Prompt (CFG)": "how closely the prompt is followed",
  "Perturbed (STG)": "against a pass without self-attention in some blocks",
  "Cross-modal": "how strongly picture and sound follow each other",
  Rescale: "0 to 1: takes back the contrast that guidance adds",
};

export function buildGuidance(defaults) {
  const grid = byId("guidance-grid");
  grid.append(
    element("span", {}),
    element("span", { class: "column", "aria-hidden": "true" }, "Video"),
    element("span", { class: "column", "aria-hidden": "true" }, "Audio"),
  );
  for (const [label, ...names] of SCALES) {
    grid.append(element("span", { class: "row-name", title: SCALE_MEANINGS[label] }, label));
    names.forEach((name, column) => grid.append(scale(name, label, column, defaults[name])));
  }
  grid.append(element("span", { class: "row-name", title: SCALE_MEANINGS["Perturbed (STG)"] }, "STG blocks"));
  for (const stream of ["video", "audio"]) {
    grid.append(
      element("input", {
        name: `${stream}_stg_blocks`,
        "aria-label": `STG blocks, ${stream}: where self-attention is skipped`,
        "aria-describedby": "guidance-error",
        placeholder: "usual",
        autocomplete: "off",
      }),
    );
  }
}

function scale(name, label, column, usual) {
  const stream = column === 0 ? "video" : "audio";
  return element("input", {
    name,
    type: "number",
    inputmode: "decimal",
    step: "any",
    placeholder: usual ?? "",
    "aria-label": `${label}, ${stream}: ${SCALE_MEANINGS[label]}`,
    "aria-describedby": "guidance-error",
  });
}

// What a pipeline is, in words, and which controls it leaves open.

const PIPELINE_MEANINGS = {
  "two-stage": "The first act at half size, then a short second act at full size.",
  "one-stage": "One act at full size, with the base checkpoint alone.",
  distilled: "Two short acts with a fixed number of steps and no guidance. Needs a distilled checkpoint.",
};

export function describePipeline(controls, defaults) {
  const pipeline = controls.pipeline.value || defaults.pipeline;
  setText(byId("pipeline-hint"), PIPELINE_MEANINGS[pipeline] ?? "");
  const fixed = pipeline === "distilled";
  controls.num_inference_steps.disabled = fixed;
  controls.num_inference_steps.placeholder = fixed ? "fixed" : defaults.num_inference_steps;
}
