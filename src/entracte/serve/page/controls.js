// The form's plain controls: those whose value goes to the service under their own name. Most are
// built from the service's list of fields, so a new field needs nothing here.

import { byId, element, setText } from "./dom.js";

// Fields whose controls index.html has.
const PLACED = ["negative_prompt", "seed"];

// An error that the form itself finds. param: the field at fault, as the service names it.
export class BadInput extends Error {
  constructor(param, message = "This is not a number.") {
    super(message);
    this.param = param;
  }
}

export class Controls {
  // fields: as the service lists them. defaults: the service's, by field.
  constructor(form, fields, defaults) {
    this.controls = form.elements;
    this.defaults = defaults;
    this.fields = fields.filter(({ id, label }) => label || PLACED.includes(id));
    build(this.fields.filter(({ label }) => label), defaults);
  }

  // The fields that were filled in, by the service's names. Raises BadInput.
  read() {
    const given = { prompt: this.controls.prompt.value };
    for (const field of this.fields) {
      const value = READ[field.type](this.controls[field.id]);
      if (value !== null && !this.controls[field.id].disabled) given[field.id] = value;
    }
    return given;
  }

  // The opposite, for the settings of a video. What is the service's default stays empty.
  fill(settings) {
    this.controls.prompt.value = settings.prompt ?? "";
    for (const { id, type } of this.fields) {
      const given = settings[id];
      const usual = given === undefined || given === null || given === this.defaults[id];
      if (type === "boolean") this.controls[id].checked = given === true;
      else this.controls[id].value = usual ? "" : Array.isArray(given) ? given.join(", ") : given;
    }
  }

  // What is chosen, in words, and which controls it leaves open.
  describeChoices() {
    for (const { id, choices } of this.fields) {
      if (choices.length === 0) continue;
      const value = this.controls[id].value || this.defaults[id];
      const chosen = choices.find((choice) => choice.value === value);
      setText(byId(`${id}-hint`), chosen?.description ?? "");
      for (const name of new Set(choices.flatMap(({ excludes }) => excludes))) {
        this.#enable(name, !chosen?.excludes.includes(name));
      }
    }
  }

  #enable(name, open) {
    this.controls[name].disabled = !open;
    this.controls[name].placeholder = open ? (this.defaults[name] ?? "") : "fixed";
  }
}

const READ = {
  string: (control) => (control.value.trim() === "" ? null : control.value),
  integer: readNumber,
  number: readNumber,
  array: readList,
  boolean: (control) => control.checked || null,
};

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
    throw new BadInput(control.name, "These are whole numbers with commas between.");
  }
  return parts.map(Number);
}

// Building the controls: switches at the end, what both streams have as a grid, and numbers in pairs.

const STREAMS = { video: "Video", audio: "Audio" };

function build(fields, defaults) {
  const checks = fields.filter(({ type }) => type === "boolean");
  const grid = fields.filter(({ stream }) => stream !== null);
  const rest = fields.filter((field) => !checks.includes(field) && !grid.includes(field));
  const guidance = rest.filter(({ group }) => group === "guidance");
  place("fields-before", rest.filter((field) => !guidance.includes(field)), defaults);
  placeGrid(grid, defaults);
  place("fields-after", guidance, defaults);
  placeChecks(checks);
}

function place(id, fields, defaults) {
  let pair = null;
  for (const field of fields) {
    const made = labelled(field, defaults[field.id]);
    const narrow = ["integer", "number"].includes(field.type) && !field.hint;
    if (!narrow) byId(id).append(made);
    else if (pair?.childElementCount === 1) pair.append(made);
    else byId(id).append((pair = element("div", { class: "pair" }, made)));
    if (!narrow) pair = null;
  }
}

function labelled(field, usual) {
  const { id, label, description, hint, choices } = field;
  const control = choices.length > 0 ? select(field) : input(field, usual);
  control.id = id;
  const hinted = hint || choices.length > 0;
  control.setAttribute("aria-describedby", `${hinted ? `${id}-hint ` : ""}${id}-error`);
  if (!hinted) control.title = description;
  return element(
    "div",
    { class: "field", "data-params": id },
    element("label", { for: id }, label),
    control,
    hinted ? element("p", { class: "hint", id: `${id}-hint` }, hint ? description : "") : null,
    element("p", { class: "error", id: `${id}-error`, hidden: true }),
  );
}

function input({ id, type, minimum, maximum, step }, usual) {
  if (type === "array" || type === "string") {
    return element("input", { name: id, autocomplete: "off", placeholder: usual ?? "usual" });
  }
  return element("input", {
    name: id,
    type: "number",
    inputmode: type === "integer" ? "numeric" : "decimal",
    min: minimum,
    max: maximum,
    step: step ?? (type === "integer" ? 1 : "any"),
    placeholder: usual ?? "",
  });
}

function select({ id, choices }) {
  const options = choices.map(({ value, label }) => element("option", { value }, label));
  return element("select", { name: id }, element("option", { value: "" }, "The server's choice"), ...options);
}

// A row for every label, with a column for each stream.
function placeGrid(fields, defaults) {
  const heads = Object.values(STREAMS).map((words) =>
    element("span", { class: "column", "aria-hidden": "true" }, words),
  );
  const grid = byId("guidance-grid");
  grid.append(element("span", {}), ...heads);
  for (const label of new Set(fields.map((field) => field.label))) {
    grid.append(element("span", { class: "row-name" }, label));
    for (const stream of Object.keys(STREAMS)) {
      const field = fields.find((each) => each.label === label && each.stream === stream);
      grid.append(field ? cell(field, defaults[field.id]) : element("span", {}));
    }
  }
  byId("guidance").dataset.params += ` ${fields.map(({ id }) => id).join(" ")}`;
}

function cell(field, usual) {
  const control = input(field, usual);
  control.title = field.description;
  control.setAttribute("aria-label", `${field.label}, ${field.stream}: ${field.description}`);
  control.setAttribute("aria-describedby", "guidance-error");
  return control;
}

function placeChecks(fields) {
  const checks = byId("checks");
  checks.dataset.params = fields.map(({ id }) => id).join(" ");
  const made = fields.map(({ id, label, description }) =>
    element(
      "label",
      { class: "check", title: description },
      element("input", { type: "checkbox", name: id }),
      ` ${label}`,
    ),
  );
  checks.prepend(...made);
}
