// Keeps the children of a list element equal to a list of things, one child a thing.
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
