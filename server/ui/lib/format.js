// How numbers, sizes and times are written.
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

export const percent = (value, digits = 1) => (value === null || value === undefined
  ? "–" : `${(100 * value).toFixed(digits)} %`);

export const percentTick = (value) => `${Number((100 * value).toFixed(1))} %`;

/** A metric as people say it: accuracies in percent. */
export const metric = (key, value) => (/accuracy$/.test(key) ? percent(value, 2) : number(value));

export const metricName = (key) => key.replaceAll("_", " ");

export function count(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= size) return `${Number((value / (unit === "k" ? 1e3 : size)).toPrecision(3))} ${unit}`;
  }
  return value.toLocaleString("en");
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let size = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000 || unit === "GB") return `${Number(size.toPrecision(3))} ${unit}`;
    size /= 1000;
  }
  return "–";
}

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${seconds < 10 && seconds > 0 ? Math.max(0.1, seconds).toFixed(1) : whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export const secondsBetween = (start, end) => (Date.parse(end) - Date.parse(start)) / 1000;

/** Such as "3 min. ago". */
export function ago(time, now = Date.now()) {
  const seconds = (Date.parse(time) - now) / 1000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS.at(-1);
  return RELATIVE.format(Math.round(seconds / size), unit);
}

export const clock = (time) => new Date(time).toLocaleString(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const shortId = (id) => `…${id.slice(-6)}`;

/** What a job is called where people look: its name, or else its model on its data. */
export const title = (job) => job.name ?? `${job.spec.model.type} on ${job.dataset.id}`;
