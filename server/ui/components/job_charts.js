import { html } from "../lib/preact.js";
import { duration, metricName, number, percentTick } from "../lib/format.js";
import { startOf } from "../lib/series.js";
import { Chart } from "./chart.js";
import { ChartControls, chartState } from "./chart_controls.js";
import { Panel } from "./panel.js";

const GROUPS = [
  ["Loss", /(^|_)loss$/, null],
  ["Accuracy", /^(train|val|test|swa|ema)?_?accuracy$/, percentTick],
  ["Learning rate", /^lr$/, null],
  ["Throughput", /^images_per_second$/, null],
];
const SECONDS = /^seconds$/;

/** [title, keys, format of the axis]: the charts that everybody wants, then each other series by itself. */
function groups(keys) {
  const named = GROUPS.map(([title, pattern, format]) => [title, keys.filter((key) => pattern.test(key)), format]);
  const taken = new Set(named.flatMap(([, found]) => found));
  const others = keys.filter((key) => !taken.has(key)).map((key) => {
    const format = SECONDS.test(key) ? duration : /accuracy$/.test(key) ? percentTick : null;
    return [metricName(key), [key], format];
  });
  return [named.filter(([, found]) => found.length), others];
}

export function JobCharts({ job, series, version, params }) {
  const state = chartState(params);
  const start = startOf(job, series);
  const [main, others] = groups([...series.keys()].sort());
  const draw = ([title, keys, format]) => html`<${Panel} key=${title} title=${title}
    call=${{ path: `${job.links.metrics}?keys=${keys.join(",")}&max_points=1000` }}>
    <${Chart} title=${title} version=${version} ...${state} format=${format ?? number}
      lines=${keys.map((key) => ({ key, label: metricName(key), points: series.get(key), start }))} />
  </${Panel}>`;
  if (!series.size) return null;
  return html`
    <${ChartControls} ...${state} />
    <div class="grid">${main.map(draw)}</div>
    ${others.length > 0 && html`<details open=${params.get("more") === "1"}>
      <summary>${others.length} more series</summary>
      <div class="grid">${others.map(draw)}</div>
    </details>`}`;
}
