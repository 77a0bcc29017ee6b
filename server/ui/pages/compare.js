import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { metricName, percentTick, title } from "../lib/format.js";
import { setParams } from "../lib/router.js";
import { startOf, useSeries } from "../lib/series.js";
import { Chart } from "../components/chart.js";
import { ChartControls, chartState } from "../components/chart_controls.js";
import { ComparedFields } from "../components/compared_fields.js";
import { ComparedResults } from "../components/compared_results.js";
import { Panel } from "../components/panel.js";
import { Problem } from "../components/problem.js";

const FIRST = ["val_loss", "val_accuracy", "train_loss", "train_accuracy"];

/** Hands the series of one job to the page; hooks want one component for each. */
function Loader({ id, onChange }) {
  const { series, version } = useSeries(id);
  useEffect(() => onChange(id, series), [version]);
  return null;
}

function useCompared(ids) {
  const [jobs, setJobs] = useState([]);
  const [error, setError] = useState(null);
  useEffect(() => {
    Promise.all(ids.map((id) => getJson(`/v1/jobs/${id}`))).then(setJobs).catch(setError);
  }, [ids.join()]);
  return [jobs, error];
}

/** A name for each, with the id where names are the same. */
function labels(jobs) {
  const names = jobs.map(title);
  return names.map((name, at) => (names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} …${jobs[at].id.slice(-6)}`));
}

export function ComparePage({ params }) {
  const ids = (params.get("ids") ?? "").split(",").filter(Boolean).slice(0, 8);
  const [jobs, error] = useCompared(ids);
  const [loaded, setLoaded] = useState({ series: {}, version: 0 });
  const receive = (id, series) => setLoaded((known) => ({ series: { ...known.series, [id]: series }, version: known.version + 1 }));
  const state = chartState(params);
  const keys = [...new Set(Object.values(loaded.series).flatMap((series) => [...series.keys()]))].sort();
  const wanted = params.get("keys")?.split(",") ?? FIRST.filter((key) => keys.includes(key));
  const names = labels(jobs);
  const draw = (key) => {
    const lines = jobs.map((job, at) => {
      const series = loaded.series[job.id];
      return { key, label: names[at], points: series?.get(key) ?? new Map(), start: series ? startOf(job, series) : 0 };
    });
    const calls = jobs.map((job) => ({ path: `${job.links.metrics}?keys=${key}&max_points=1000` }));
    return html`<${Panel} key=${key} title=${metricName(key)} call=${calls}><${Chart} title=${key} lines=${lines} version=${loaded.version}
      ...${state} format=${/accuracy$/.test(key) ? percentTick : null} /></${Panel}>`;
  };
  return html`
    ${ids.map((id) => html`<${Loader} key=${id} id=${id} onChange=${receive} />`)}
    <div class="spread"><h1>Compare ${jobs.length} jobs</h1>
      <label class="row push">Add a chart <select value="" onChange=${(event) => setParams({ keys: [...wanted, event.target.value].join(",") })}>
        <option value="">choose…</option>${keys.filter((key) => !wanted.includes(key)).map((key) => html`<option value=${key}>${metricName(key)}</option>`)}
      </select></label></div>
    <${Problem} error=${error} />
    <${ComparedResults} jobs=${jobs} />
    <${ChartControls} ...${state} />
    <div class="grid">${jobs.length > 0 && wanted.map(draw)}</div>
    <${ComparedFields} jobs=${jobs} />`;
}
