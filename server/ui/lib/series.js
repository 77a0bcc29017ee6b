// The series of jobs: key -> step -> {epoch, value, at}, kept up to date by their events.
import { useEffect, useRef, useState } from "./preact.js";
import { getJson } from "./api.js";
import { useEvents, whenLive } from "./live.js";

const MAX_POINTS = 2000;

function put(series, key, step, point) {
  if (!series.has(key)) series.set(key, new Map());
  series.get(key).set(step, point);
}

function apply(series, event) {
  const { epoch, step, values, timings } = event.data;
  for (const [key, value] of Object.entries({ ...values, ...timings })) {
    put(series, key, step, { epoch, value, at: event.at });
  }
}

/** Points are known by their step, so that one that comes twice is still one. */
export function useSeries(jobId) {
  const series = useRef(new Map());
  const fresh = useRef([]);
  const [version, setVersion] = useState(0);

  async function load() {
    fresh.current = [];
    const answer = await getJson(`/v1/jobs/${jobId}/metrics?max_points=${MAX_POINTS}`);
    const found = new Map();
    for (const { key, step, ...point } of answer.data) put(found, key, step, point);
    fresh.current.forEach((event) => apply(found, event)); // what came while the answer was on its way
    series.current = found;
    setVersion((known) => known + 1);
  }
  useEffect(() => { whenLive().then(load).catch(() => {}); }, [jobId]);
  useEvents((event) => {
    if (event.job_id !== jobId) return;
    if (event.type === "job.status" && event.data.to === "running") load().catch(() => {}); // it may go back some steps
    if (event.type !== "job.metric") return;
    fresh.current.push(event);
    apply(series.current, event);
    setVersion((known) => known + 1);
  });
  return { series: series.current, version };
}

/** The newest value of a series. */
export function last(series, key) {
  const points = series.get(key);
  return points ? [...points.entries()].reduce((best, entry) => (entry[0] > best[0] ? entry : best))[1].value : null;
}

/** Moving average with exponentially falling weights, without the pull of its start towards 0; 0 leaves all as it is. */
export function smooth(values, weight) {
  let [sum, norm] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + 1 - weight;
    return sum / norm;
  });
}

const X_OF = {
  step: (step) => step,
  epoch: (step, point) => point.epoch,
  time: (step, point, start) => (Date.parse(point.at) - start) / 1000,
};

/** uPlot's columns: x, then y of each line ({points: Map}); null where a line has no point. */
export function columns(lines, x, log) {
  const rows = new Map();
  lines.forEach(({ points, start }, index) => {
    for (const [step, point] of points) {
      const at = X_OF[x](step, point, start);
      if (!rows.has(at)) rows.set(at, new Array(lines.length).fill(null));
      const usable = point.value !== null && (!log || point.value > 0);
      rows.get(at)[index] = usable ? point.value : null;
    }
  });
  const sorted = [...rows.keys()].sort((a, b) => a - b);
  return [sorted, ...lines.map((_, index) => sorted.map((at) => rows.get(at)[index]))];
}

/** When a job's series begin, for the axis of time. */
export function startOf(job, series) {
  const first = [...series.values()].map((points) => [...points.values()][0]?.at).filter(Boolean).sort()[0];
  return Date.parse(job.started_at && (!first || job.started_at < first) ? job.started_at : first ?? job.created_at);
}
