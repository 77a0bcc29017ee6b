import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";

const MAX_AT_ONCE = 4;
const PAUSE_MS = 2000;
const [WIDTH, HEIGHT] = [110, 28];
const waiting = [];
let running = 0;

function enqueue(work) {
  waiting.push(work);
  while (running < MAX_AT_ONCE && waiting.length) {
    running += 1;
    waiting.shift()().finally(() => {
      running -= 1;
      if (waiting.length) enqueue(waiting.shift());
    });
  }
}

function path(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (index) => 2 + (index * (WIDTH - 4)) / Math.max(1, values.length - 1);
  const y = (value) => HEIGHT - 3 - ((value - low) * (HEIGHT - 6)) / (high - low || 1);
  return values.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}

/** A job's series in small; fetched once it can be seen, and again at most every two seconds when `version` changes. */
export function Sparkline({ jobId, series, version }) {
  const place = useRef();
  const fetched = useRef(0);
  const [seen, setSeen] = useState(false);
  const [values, setValues] = useState([]);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && setSeen(true));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!seen || !series) return undefined;
    const timer = setTimeout(() => enqueue(async () => {
      fetched.current = Date.now();
      const answer = await getJson(`/v1/jobs/${jobId}/metrics?keys=${series}&max_points=40`).catch(() => ({ data: [] }));
      setValues(answer.data.map((point) => point.value).filter((value) => value !== null));
    }), Math.max(0, fetched.current + PAUSE_MS - Date.now()));
    return () => clearTimeout(timer);
  }, [seen, series, version]);
  return html`<svg ref=${place} class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img"
    aria-label=${values.length ? `${series} over ${values.length} points` : "no points yet"}>
    ${values.length > 1 && html`<path d=${path(values)} />`}
  </svg>`;
}
