// The machine: every worker, and the service's state at the top of the page.

import { byId, setText, show } from "../base/dom.js";
import { KeyedList } from "../base/keyed_list.js";
import { WorkerView } from "./worker_view.js";

const STATES = {
  starting: "Starting",
  ready: "Ready",
  draining: "Stopping",
  down: "Out of order",
};

export class Machine {
  constructor() {
    byId("workers").replaceChildren();
    this.list = new KeyedList(byId("workers"), (worker) => new WorkerView(worker), byId("machine-title"));
  }

  update(engine) {
    this.list.render(engine.workers.map((worker) => ({ ...worker, id: worker.name })));
    const pill = byId("engine-status");
    const busy = engine.workers.some((worker) => worker.state === "busy");
    pill.dataset.state = busy && engine.status === "ready" ? "busy" : engine.status;
    setText(pill, busy && engine.status === "ready" ? "Working" : STATES[engine.status]);
    show(pill, true);
  }
}
