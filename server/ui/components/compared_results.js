import { html } from "../lib/preact.js";
import { duration, metric, metricName, percent, title } from "../lib/format.js";
import { times } from "../lib/jobs.js";
import { Chip } from "./chip.js";
import { Panel } from "./panel.js";
import { Scroll } from "./scroll.js";

export function ComparedResults({ jobs }) {
  return html`<${Panel} title="Results" flush call=${jobs.map((job) => ({ path: job.links.self }))}><${Scroll} label="Results"><table>
    <thead><tr><th scope="col">Job</th><th scope="col">Status</th><th scope="col">Best</th><th scope="col">Test accuracy</th>
      <th scope="col">Val accuracy</th><th scope="col">Ran for</th></tr></thead>
    <tbody>${jobs.map((job, at) => html`<tr key=${job.id}>
      <td><span class="s${at}">●</span> <a href="#/jobs/${job.id}">${title(job)}</a></td><td><${Chip} ...${job} /></td>
      <td>${job.best ? `${metricName(job.best.metric)} ${metric(job.best.metric, job.best.value)}, epoch ${job.best.epoch}` : "–"}</td>
      <td>${percent(job.result?.test_accuracy, 2)}</td><td>${percent(job.latest_metrics.val_accuracy, 2)}</td>
      <td>${duration(times(job, Date.now()).runningSeconds)}</td></tr>`)}</tbody>
  </table></${Scroll}></${Panel}>`;
}
