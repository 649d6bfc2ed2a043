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

// Known to the service as the same request when it is sent again, as after a lost answer.
// (crypto.randomUUID is missing where the page comes over plain HTTP from another machine.)
export function newIdempotencyKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
