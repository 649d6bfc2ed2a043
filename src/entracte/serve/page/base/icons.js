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
