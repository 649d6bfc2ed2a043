// Server-sent events from a stream of text.
//
// Read here and not by EventSource, which hides why a connection ended and the comments that show
// it to be alive.

export class EventParser {
  #rest = "";
  #kind = "";
  #data = [];

  // Text as it came; returns the events that it completes, as {kind, data}.
  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") this.#end(events);
      else this.#take(line);
    }
    return events;
  }

  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#kind = value;
    else if (name === "data") this.#data.push(value);
  }

  #end(events) {
    if (this.#data.length > 0) {
      events.push({ kind: this.#kind || "message", data: this.#data.join("\n") });
    }
    this.#kind = "";
    this.#data = [];
  }
}
