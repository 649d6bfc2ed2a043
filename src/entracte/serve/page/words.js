// Numbers and times in human-readable form.

export function duration(seconds) {
  if (seconds < 10) return `${trim(seconds, 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 100) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 10) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (minutes < 100) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Rough estimates are not shown to the second.
export function about(seconds) {
  if (seconds < 1) return "about a second";
  if (seconds < 20) return `about ${Math.round(seconds)} s`;
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} s`;
  const minutes = seconds / 60;
  if (minutes < 10) return `about ${trim(Math.round(minutes * 2) / 2, 1)} min`;
  if (minutes < 90) return `about ${Math.round(minutes)} min`;
  return `about ${trim(minutes / 60, 1)} h`;
}

export function bytes(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= size) return `${trim(count / size, count >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${count} bytes`;
}

export function size(text) {
  return text.replace("x", " × ");
}

export function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function trim(number, digits) {
  return String(Number(number.toFixed(digits)));
}

export function ago(time, now = Date.now() / 1000) {
  const passed = Math.max(0, now - time);
  if (passed < 60) return "just now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  const days = Math.floor(passed / 86400);
  return days === 1 ? "yesterday" : `${days} days ago`;
}

export function moment(time) {
  return new Date(time * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// The server's messages begin with the field's name, which is redundant next to the field.
export function besideField(message, param) {
  const prefix = `${param}: `;
  const words = param && message.startsWith(prefix) ? message.slice(prefix.length) : message;
  const sentence = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}

export function shortened(text, length = 60) {
  return text.length > length ? `${text.slice(0, length - 1).trimEnd()}…` : text;
}
