import { html } from "../lib/preact.js";
import { ago, clock, duration, metric, metricName, percent, shortId, title } from "../lib/format.js";
import { accuracy } from "../lib/job_list.js";
import { times } from "../lib/jobs.js";
import { setParams } from "../lib/router.js";
import { Bar } from "./bar.js";
import { Chip } from "./chip.js";
import { Sparkline } from "./sparkline.js";

function Progress({ job, now }) {
  const { queuedSeconds, runningSeconds } = times(job, now);
  const position = job.queue ? `, place ${job.queue.position}` : "";
  const words = job.status === "queued" ? `waiting ${duration(queuedSeconds)}${position}`
    : `epoch ${job.progress?.epoch ?? 0}/${job.progress?.epochs ?? job.spec.training.epochs}${
      runningSeconds === null ? "" : ` · ${duration(runningSeconds)}`}`;
  const fraction = job.status === "succeeded" ? 1 : job.progress?.fraction;
  return html`<${Bar} fraction=${fraction} status=${job.status} label="Progress of ${title(job)}" />
    <span class="small soft">${words}</span>`;
}

export function JobRow({ job, now, chosen, onChoose }) {
  const series = job.best?.metric ?? (job.latest_metrics.val_loss !== undefined ? "val_loss" : "train_loss");
  return html`<tr class="job" data-id=${job.id}>
    <td class="choose"><input type="checkbox" checked=${chosen} aria-label="Compare ${title(job)}"
      onChange=${() => onChoose(job.id)} /></td>
    <td class="name">
      <a href="#/jobs/${job.id}" class="wrap">${title(job)}</a>
      <span class="small soft"> ${shortId(job.id)}</span>
      ${job.tags.map((tag) => html` <button class="tag" title="Only jobs with this tag" onClick=${() => setParams({ tag })}>${tag}</button>`)}
    </td>
    <td class="status"><${Chip} ...${job} /></td>
    <td class="progress"><${Progress} job=${job} now=${now} /></td>
    <td class="best">${job.best
      ? html`<b>${metric(job.best.metric, job.best.value)}</b><br /><span class="small soft">${metricName(job.best.metric)}, epoch ${job.best.epoch}</span>`
      : html`<span class="soft">–</span>`}</td>
    <td class="accuracy">${accuracy(job) === null ? html`<span class="soft">–</span>`
      : html`<b>${percent(accuracy(job), 2)}</b><br /><span class="small soft">${job.result ? "test" : "val"}</span>`}</td>
    <td class="curve"><${Sparkline} jobId=${job.id} series=${job.attempt ? series : null} version=${job.progress?.epoch} /></td>
    <td class="created small soft" title=${clock(job.created_at)}>${ago(job.created_at, now)}</td>
  </tr>`;
}
