/** A spec as pairs of pointer and value: {"/optimizer/lr": 0.1, …}. Lists of plain values stay whole. */
export function flat(value, path = "") {
  const nested = value !== null && typeof value === "object"
    && (!Array.isArray(value) || value.some((item) => item !== null && typeof item === "object"));
  if (!nested || Object.keys(value).length === 0) return { [path]: value };
  return Object.assign({}, ...Object.entries(value).map(([name, item]) => flat(item, `${path}/${name}`)));
}
