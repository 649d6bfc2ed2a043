// The draft's images between two visits. They are too large for localStorage, so they are kept in
// the browser's database; where there is none, as in some private windows, they are not kept.

const NAME = "entracte";
const STORE = "draft";
const KEY = "images";

export async function saveImages(images) {
  await inStore("readwrite", (store) => store.put(images, KEY)).catch(() => {});
}

export async function loadImages() {
  return (await inStore("readonly", (store) => store.get(KEY)).catch(() => null)) ?? [];
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
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return settled(request);
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
