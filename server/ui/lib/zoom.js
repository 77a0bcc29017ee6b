// A chart's range by the keys.
const SHARE = 0.25;

const KEYS = {
  "+": (size) => [SHARE * size, -SHARE * size],
  "=": (size) => [SHARE * size, -SHARE * size], // where + needs the shift key
  "-": (size) => [-size / 2, size / 2],
  ArrowLeft: (size) => [-SHARE * size, -SHARE * size],
  ArrowRight: (size) => [SHARE * size, SHARE * size],
};

/** What is shown after a key when `min` to `max` is shown of `low` to `high`; null for all, undefined for other keys. */
export function zoomed(key, [min, max], [low, high]) {
  if (key === "0") return null;
  if (!KEYS[key]) return undefined;
  const [left, right] = KEYS[key](max - min);
  if (min + left <= low && max + right >= high) return null;
  const shift = Math.max(0, low - min - left) + Math.min(0, high - max - right);
  return [min + left + shift, max + right + shift];
}
