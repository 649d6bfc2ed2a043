// The grid of guidance scales: how strongly each influence counts, for picture and sound.

import { byId, element } from "../base/dom.js";
import { SCALES } from "./controls.js";

const MEANINGS = {
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
    grid.append(element("span", { class: "row-name", title: MEANINGS[label] }, label));
    names.forEach((name, column) => grid.append(scale(name, label, column, defaults[name])));
  }
  grid.append(element("span", { class: "row-name", title: MEANINGS["Perturbed (STG)"] }, "STG blocks"));
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
    "aria-label": `${label}, ${stream}: ${MEANINGS[label]}`,
    "aria-describedby": "guidance-error",
  });
}
