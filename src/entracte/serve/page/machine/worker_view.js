// One worker: its device, what it does now, how it is arranged, and its memory.

import { element, setText, show } from "../base/dom.js";
import { stageWords } from "../videos/acts.js";
import { memoryOf } from "./memory.js";
import { MemoryView } from "./memory_view.js";

const STATES = {
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

export class WorkerView {
  constructor(worker) {
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
    setText(this.state, working ? stageWords(worker.stage) : (STATES[worker.state] ?? worker.state));
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
