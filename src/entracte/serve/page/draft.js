// The contents of the form, kept in this browser until cleared.

// The draft's images between two visits. They are too large for localStorage, so they are kept in
// the browser's database; without one, as in some private windows, they are not kept.

const DATABASE = "entracte";
const STORE = "draft";
const IMAGES_KEY = "images";

// Returns the name to load them by. A reload may come before they are written: what is found then
// has another name, and is not what was saved last.
export function saveImages(images) {
  const name = `${Date.now()} ${Math.random()}`;
  inStore("readwrite", (store) => store.put({ name, images }, IMAGES_KEY)).catch(() => {});
  return name;
}

export async function loadImages(name) {
  const found = await inStore("readonly", (store) => store.get(IMAGES_KEY)).catch(() => null);
  return name !== undefined && found?.name === name ? found.images : [];
}

async function inStore(mode, act) {
  const database = await opened();
  try {
    return await settled(act(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

function opened() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return settled(request);
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

const VALUES_KEY = "entracte.draft";

export function saveDraft(draft) {
  try {
    localStorage.setItem(VALUES_KEY, JSON.stringify(draft));
  } catch {
    // Full or forbidden: the form works all the same.
  }
}

export function loadDraft() {
  try {
    return JSON.parse(localStorage.getItem(VALUES_KEY));
  } catch {
    return null;
  }
}

export function forgetDraft() {
  localStorage.removeItem(VALUES_KEY);
  saveImages([]);
}

// The values of the named controls of a form.
export function readNamed(form) {
  const values = {};
  for (const control of form.elements) {
    if (control.name) values[control.name] = control.type === "checkbox" ? control.checked : control.value;
  }
  return values;
}

export function fillNamed(form, values) {
  for (const control of form.elements) {
    if (!control.name || !(control.name in values)) continue;
    if (control.type === "checkbox") control.checked = values[control.name] === true;
    else control.value = values[control.name];
  }
}
