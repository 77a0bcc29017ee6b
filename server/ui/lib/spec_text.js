// Specs as people read them: what fits a line stands on one.
const WIDTH = 100;

function inLine(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(inLine).join(", ")}]`;
  return `{${Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${inLine(item)}`).join(", ")}}`;
}

export function format(value, indent = "") {
  const flat = inLine(value);
  if (value === null || typeof value !== "object" || flat.length + indent.length <= WIDTH) return flat;
  const inner = `${indent}  `;
  const list = Array.isArray(value);
  const rows = list ? value.map((item) => format(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${format(item, inner)}`);
  return `${list ? "[" : "{"}\n${inner}${rows.join(`,\n${inner}`)}\n${indent}${list ? "]" : "}"}`;
}
