// JSON of the service. A seed that is too large for a JavaScript number stays as the digits that came.

export function parseJson(text) {
  return JSON.parse(text, (name, value, context) =>
    name === "seed" && typeof value === "number" && !Number.isSafeInteger(value) && context
      ? context.source
      : value,
  );
}
