// The machine: every worker with its state, its plan and its memory.

import { byId, element, KeyedList, setText, show } from "./dom.js";
import { bytes } from "./words.js";

// A worker's memory as this page shows it: by component, on the device and in host memory.

const NAMES = {
  transformer: "Transformer",
  text_encoder: "Text encoder",
  connectors: "Connectors",
  video_vae: "Video VAE",
  audio_vae: "Audio VAE",
  vocoder: "Vocoder",
  upsampler: "Upsampler",
};

// Colours are custom properties of palette.css, the same as in the report of a run.
const OTHER_COLOURS = 3;
const EVERYTHING_ELSE = "var(--activations)";

function colourOf(component, unknown) {
  if (component in NAMES) return `var(--component-${component})`;
  return `var(--component-other-${unknown.indexOf(component) % OTHER_COLOURS})`;
}

const CONTENTS = { base: "base weights", merged: "merged weights", factors: "LoRA factors", empty: "no weights yet" };

// {parts: [{name, colour, device, host, content}], used, total}; total is null on a CPU.
function memoryOf(worker) {
  const rows = worker.memory;
  const components = [...new Set(rows.map((row) => row.component))];
  components.sort((one, other) => rank(one) - rank(other));
  const unknown = components.filter((component) => !(component in NAMES));
  const parts = components.map((component) => {
    const mine = rows.filter((row) => row.component === component);
    return {
      name: NAMES[component] ?? component,
      colour: colourOf(component, unknown),
      device: sum(mine.filter((row) => row.where === "device")),
      host: sum(mine.filter((row) => row.where === "pinned" || row.where === "pageable")),
      content: contentWords(mine),
    };
  });
  const weights = parts.reduce((all, part) => all + part.device, 0);
  const onCpu = worker.device_total_bytes === null;
  const used = Math.max(weights, (onCpu ? worker.host_used_bytes : worker.device_used_bytes) ?? 0);
  if (used > weights) {
    parts.push({ name: "Everything else", colour: EVERYTHING_ELSE, device: used - weights, host: 0, content: "" });
  }
  return { parts, used, total: worker.device_total_bytes };
}

// The order of the pipeline's report; others come behind.
function rank(component) {
  const place = Object.keys(NAMES).indexOf(component);
  return place < 0 ? 99 : place;
}

// Base weights alone are the usual case and need no words.
function contentWords(rows) {
  const contents = [...new Set(rows.map((row) => row.content))];
  if (contents.length === 1 && contents[0] === "base") return "";
  return contents.map((content) => CONTENTS[content] ?? content).join(" and ");
}

function sum(rows) {
  return rows.reduce((all, row) => all + row.bytes, 0);
}

// Memory as a stacked bar with a legend that has the numbers.
class MemoryView {
  constructor() {
    this.words = element("p", { class: "memory-words" });
    this.bar = element("div", { class: "memory-bar", role: "img" });
    this.legend = element("ul", { class: "legend", "aria-label": "Memory by component" });
    this.root = element("div", { class: "memory" }, this.words, this.bar, this.legend);
  }

  update(memory) {
    const state = JSON.stringify(memory);
    if (state === this.state) return;
    this.state = state;
    const { parts, used, total } = memory;
    const onCpu = total === null;
    const words = onCpu ? `${bytes(used)} of host memory` : `${bytes(used)} of ${bytes(total)} on the device`;
    setText(this.words, words);
    this.#drawBar(parts, total ?? used, onCpu ? "Host memory" : "Device memory");
    this.legend.replaceChildren(...parts.map(legendRow));
  }

  #drawBar(parts, whole, place) {
    const shown = parts.filter((part) => part.device > 0);
    while (this.bar.children.length > shown.length) this.bar.lastElementChild.remove();
    while (this.bar.children.length < shown.length) this.bar.append(element("span"));
    shown.forEach((part, number) => {
      const { style } = this.bar.children[number];
      style.flexBasis = `${(part.device / whole) * 100}%`;
      style.backgroundColor = part.colour;
      this.bar.children[number].title = `${part.name}: ${bytes(part.device)}`;
    });
    const list = shown.map((part) => `${part.name} ${bytes(part.device)}`).join(", ");
    this.bar.setAttribute("aria-label", `${place}: ${list}`);
  }
}

function legendRow({ name, colour, device, host, content }) {
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.backgroundColor = colour;
  const rest = [content, host > 0 ? `${bytes(host)} in host memory` : ""].filter(Boolean).join(" · ");
  return element(
    "li",
    {},
    swatch,
    element("span", { class: "legend-name" }, name),
    element("span", { class: "legend-bytes" }, device > 0 ? bytes(device) : "–"),
    rest ? element("small", {}, rest) : null,
  );
}

// One worker: its device, what it does now, how it is arranged, and its memory.

const WORKER_STATES = {
  starting: "Opening the model",
  warming: "Warming up",
  ready: "Idle",
  busy: "Working",
  restarting: "Starting again",
  failed: "Cannot start",
  stopped: "Stopped",
};

const MODES = {
  resident: "Everything stays in memory, the second act's weights beside the first's.",
  snapshot: "The second act's weights are copied in while the first act ends.",
  fused: "Each block is merged for the second act just before its use.",
  original: "The second act's weights are merged in place, and the first's restored from a copy.",
  dynamic: "Nothing is merged; the second act's weights are added as they are used.",
};

class WorkerView {
  constructor(worker, stages) {
    this.stages = stages;
    this.device = element("h3", {}, deviceWords(worker.device));
    this.state = element("p", { class: "worker-state" });
    this.plan = element("p", { class: "worker-plan" });
    this.memory = new MemoryView();
    this.root = element(
      "article",
      { class: "worker" },
      element("header", { class: "worker-head" }, this.device, this.state),
      this.memory.root,
      this.plan,
    );
  }

  update(worker) {
    setText(this.device, deviceWords(worker.device));
    const working = worker.state === "busy" && worker.stage;
    setText(this.state, working ? this.stages.words(worker.stage) : (WORKER_STATES[worker.state] ?? worker.state));
    this.state.dataset.state = worker.state;
    show(this.memory.root, worker.memory.length > 0);
    if (worker.memory.length > 0) this.memory.update(memoryOf(worker));
    show(this.plan, worker.mode !== null);
    this.#sayPlan(worker);
  }

  #sayPlan({ mode, plan }) {
    if (mode === null || this.said === `${mode} ${plan}`) return;
    this.said = `${mode} ${plan}`;
    this.plan.replaceChildren(element("strong", {}, plan ?? mode), element("span", {}, MODES[mode] ?? ""));
  }
}

function deviceWords(device) {
  if (device === "cpu") return "CPU";
  const gpu = /^cuda(?::(\d+))?$/.exec(device);
  return gpu ? `GPU ${gpu[1] ?? 0}` : device;
}

// The machine: every worker, and the service's state at the top of the page.

const SERVICE_STATES = {
  starting: "Starting",
  ready: "Ready",
  draining: "Stopping",
  down: "Out of order",
};

export class Machine {
  constructor(stages) {
    byId("workers").replaceChildren();
    const view = (worker) => new WorkerView(worker, stages);
    this.list = new KeyedList(byId("workers"), view, byId("machine-title"));
  }

  update(engine) {
    this.list.render(engine.workers.map((worker) => ({ ...worker, id: worker.name })));
    const pill = byId("engine-status");
    const busy = engine.workers.some((worker) => worker.state === "busy");
    pill.dataset.state = busy && engine.status === "ready" ? "busy" : engine.status;
    setText(pill, busy && engine.status === "ready" ? "Working" : SERVICE_STATES[engine.status]);
    show(pill, true);
  }
}
