// Files that are dropped or pasted anywhere on the page.

import { byId, show } from "../base/dom.js";

export function dropsAndPastes(take) {
  const veil = byId("drop-veil");
  let inside = 0; // elements that were entered and not yet left

  function leave() {
    inside = 0;
    show(veil, false);
  }

  // Without this, a file that is dropped beside the field would replace the page.
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    inside += 1;
    show(veil, !byId("work").hidden);
  });
  document.addEventListener("dragleave", (event) => {
    if (hasFiles(event) && --inside <= 0) leave();
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    leave();
    if (!byId("work").hidden) take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0 || byId("work").hidden) return;
    event.preventDefault();
    take(files);
  });
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}
