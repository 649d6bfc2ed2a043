// The form's plain controls: those whose value goes to the service under their own name.

export const SCALES = [
  ["Prompt (CFG)", "video_cfg_guidance_scale", "audio_cfg_guidance_scale"],
  ["Perturbed (STG)", "video_stg_guidance_scale", "audio_stg_guidance_scale"],
  ["Cross-modal", "a2v_guidance_scale", "v2a_guidance_scale"],
  ["Rescale", "video_rescale_scale", "audio_rescale_scale"],
];
export const BLOCKS = ["video_stg_blocks", "audio_stg_blocks"];

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
