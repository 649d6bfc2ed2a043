// Creates and finds elements, icons and lists. Text is inserted as text, never as markup.

export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`there is no element #${id}`);
  return found;
}

// element("button", {class: "small", type: "button", onclick: act}, "Cancel")
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else setAttribute(made, name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function setAttribute(target, name, value) {
  if (value === null || value === undefined || value === false) target.removeAttribute(name);
  else target.setAttribute(name, value === true ? "" : String(value));
}

// Rewriting equal text would still notify screen readers and trigger layout.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// Whether its middle is visible without scrolling.
export function inView(target) {
  const { top, bottom } = target.getBoundingClientRect();
  const middle = (top + bottom) / 2;
  return middle > 0 && middle < innerHeight;
}

export function show(target, shown) {
  target.hidden = !shown;
}

// Icons as lines on a grid of 24. They are decoration: what a button does is in its label.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  again: ["M4 12a8 8 0 1 0 2.6-5.9", "M4 4v4.5h4.5"],
  seed: ["M5 5h14v14H5z", "M9 9h.01", "M15 9h.01", "M12 12h.01", "M9 15h.01", "M15 15h.01"],
  download: ["M12 4v11", "M7.5 11 12 15.5 16.5 11", "M5 20h14"],
  remove: ["M5 7h14", "M10 7V4.5h4V7", "M7 7l1 13h8l1-13"],
  settings: ["M4 8h9", "M17 8h3", "M4 16h3", "M11 16h9", "M15 5.5v5", "M9 13.5v5"],
  close: ["M6 6l12 12", "M18 6 6 18"],
  film: ["M4 5h16v14H4z", "M8 5v14", "M16 5v14", "M4 10h4", "M4 14h4", "M16 10h4", "M16 14h4"],
  alert: ["M12 4 3 19.5h18z", "M12 10v4.5", "M12 17h.01"],
  image: ["M4 5h16v14H4z", "M4 16l5-5 4 4 3-3 4 4", "M15 9h.01"],
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const data of PATHS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    svg.append(path);
  }
  return svg;
}

// Keeps the children of a list element equal to a list of things, one child per thing.
//
// A child is moved only where it must be: a video that is moved stops playing.
export class KeyedList {
  // make(thing) returns {root, update(thing), leave?()}. refuge: what takes the focus when the
  // child that had it goes and leaves no neighbour.
  constructor(list, make, refuge) {
    this.list = list;
    this.make = make;
    this.refuge = refuge;
    this.views = new Map();
  }

  render(things) {
    const wanted = new Set(things.map((thing) => thing.id));
    const lost = this.#removeAllBut(wanted);
    let place = this.list.firstElementChild;
    for (const thing of things) {
      let view = this.views.get(thing.id);
      if (!view) {
        view = this.make(thing);
        this.views.set(thing.id, view);
      }
      view.update(thing);
      if (view.root === place) place = place.nextElementSibling;
      else this.list.insertBefore(view.root, place);
    }
    if (lost !== null) this.#focusNear(lost);
  }

  // Returns the place of the child that had the focus and went, or null.
  #removeAllBut(wanted) {
    let lost = null;
    for (const [id, view] of this.views) {
      if (wanted.has(id)) continue;
      if (view.root.contains(document.activeElement)) {
        lost = [...this.list.children].indexOf(view.root);
      }
      view.leave?.();
      view.root.remove();
      this.views.delete(id);
    }
    return lost;
  }

  #focusNear(place) {
    const children = this.list.children;
    const near = children[Math.min(place, children.length - 1)];
    (near?.querySelector("button") ?? this.refuge).focus({ preventScroll: true });
  }
}

// One clock for everything that counts seconds, so that all of it changes at once.

const listeners = new Set();
let timer = null;

// Returns a function that stops it.
export function everySecond(tell) {
  listeners.add(tell);
  timer ??= setInterval(() => listeners.forEach((each) => each()), 1000);
  return () => {
    listeners.delete(tell);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = null;
  };
}
