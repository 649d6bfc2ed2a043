// The service's HTTP interface. Every call returns parsed JSON or throws an ApiError.

export class ApiError extends Error {
  // status 0: no response at all. param: the field at fault, or null.
  constructor(status, message, { type = null, param = null, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, param, code, retryAfter });
  }
}

// "signed-out" is dispatched here when the service no longer knows this page.
export const api = Object.assign(new EventTarget(), {
  session: () => ask("GET", "/session"),
  signIn: (key) => ask("POST", "/session", { json: { key }, open: true }),
  signOut: () => ask("DELETE", "/session"),

  engine: () => ask("GET", "/v1/engine"),
  loras: async () => (await ask("GET", "/v1/loras")).data,
  fields: async () => (await ask("GET", "/v1/fields")).data,
  stages: async () => (await ask("GET", "/v1/stages")).data,

  videos({ limit = 20, after = null } = {}) {
    const query = new URLSearchParams({ limit, ...(after && { after }) });
    return ask("GET", `/v1/videos?${query}`);
  },
  create: (form, idempotencyKey) =>
    ask("POST", "/v1/videos", { form, headers: { "Idempotency-Key": idempotencyKey } }),
  estimate: (fields, signal) => ask("POST", "/v1/videos/estimate", { json: fields, signal }),
  cancel: (id) => ask("POST", `${videoPath(id)}/cancel`),
  // keepalive: it is still sent when the page is being left.
  remove: (id, keepalive = false) => ask("DELETE", videoPath(id), { keepalive }),

  async image(id, number) {
    const answer = await send("GET", imageUrl(id, number));
    return answer.blob();
  },
});

export function contentUrl(id, variant = "video") {
  return `${videoPath(id)}/content?variant=${variant}`;
}

export function downloadUrl(id) {
  return `${videoPath(id)}/content?download=1`;
}

export function imageUrl(id, number) {
  return `${videoPath(id)}/images/${number}`;
}

function videoPath(id) {
  return `/v1/videos/${encodeURIComponent(id)}`;
}

async function ask(method, path, options) {
  const answer = await send(method, path, options);
  return answer.status === 204 ? null : parseJson(await answer.text());
}

async function send(method, path, { json, form, headers = {}, signal, keepalive, open } = {}) {
  const body = json === undefined ? form : JSON.stringify(json);
  if (json !== undefined) headers = { ...headers, "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, keepalive });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Nothing was lost; try again.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && !open) api.dispatchEvent(new Event("signed-out"));
  throw await readError(answer);
}

async function readError(answer) {
  const retryAfter = Number(answer.headers.get("Retry-After")) || null;
  try {
    const { error } = await answer.json();
    return new ApiError(answer.status, error.message, { ...error, retryAfter });
  } catch {
    // A proxy answered instead of the server.
    return new ApiError(answer.status, `The server answered with ${answer.status}.`, { retryAfter });
  }
}

// JSON of the service. A seed that is too large for a JavaScript number stays as the digits that came.
export function parseJson(text) {
  return JSON.parse(text, (name, value, context) =>
    name === "seed" && typeof value === "number" && !Number.isSafeInteger(value) && context
      ? context.source
      : value,
  );
}

// A request for a video, as multipart form data.
export function requestForm(fields, files = [], said = []) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined) continue;
    form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  for (const file of files) form.append("input_reference", file, file.name || "image.png");
  if (files.length > 0) form.append("images", JSON.stringify(said));
  return form;
}

// Identifies a request, so that the service recognises it when it is sent again.
// (crypto.randomUUID is missing where the page comes over plain HTTP from another machine.)
export function newIdempotencyKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
