// Elements, made and found. Text goes in as text, never as markup.

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

export function setAttribute(target, name, value) {
  if (value === null || value === undefined || value === false) target.removeAttribute(name);
  else target.setAttribute(name, value === true ? "" : String(value));
}

// Writing what is there already would still wake screen readers and the layout.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// Whether its middle can be seen without scrolling.
export function inView(target) {
  const { top, bottom } = target.getBoundingClientRect();
  const middle = (top + bottom) / 2;
  return middle > 0 && middle < innerHeight;
}

export function show(target, shown) {
  target.hidden = !shown;
}
