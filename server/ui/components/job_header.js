import { html } from "../lib/preact.js";
import { ago, clock, duration, plural, title } from "../lib/format.js";
import { times } from "../lib/jobs.js";
import { Bar } from "./bar.js";
import { Chip } from "./chip.js";
import { JobActions } from "./job_actions.js";

function Facts({ job, now }) {
  const { queuedSeconds, runningSeconds } = times(job, now);
  const facts = [`queued for ${duration(queuedSeconds)}`];
  if (runningSeconds !== null) facts.push(`${job.terminal ? "ran" : "running"} for ${duration(runningSeconds)}`);
  if (job.status === "running" && job.progress?.eta_at) {
    facts.push(`done in ${duration((Date.parse(job.progress.eta_at) - now) / 1000)}`);
  }
  if (job.queue) facts.push(`place ${job.queue.position} in the queue`);
  if (job.status === "queued" && job.queue && !job.queue.estimated_start_at) facts.push("no worker is there to train it");
  else if (job.queue?.estimated_start_at) facts.push(`starts ${ago(job.queue.estimated_start_at, now)}`);
  if (job.pause_reason === "disk_full") facts.push("waits for room on the disk");
  if (job.device) facts.push(`${job.device}, ${plural(job.threads, "thread")}, ${job.worker}`);
  if (job.attempt > 1) facts.push(`attempt ${job.attempt}`);
  return html`<p class="small soft">${facts.join(" · ")}</p>`;
}

export function JobHeader({ job, now, onChange }) {
  const progress = job.progress;
  const fraction = job.status === "succeeded" ? 1 : progress?.fraction;
  return html`<section class="panel jobhead" aria-label="Job">
    <div class="spread">
      <h1>${title(job)}</h1>
      <span role="status" aria-live="polite"><${Chip} ...${job} /></span>
      <span class="push"><${JobActions} job=${job} onChange=${onChange} /></span>
    </div>
    <div>
      <${Bar} fraction=${fraction} status=${job.status} label="Progress" />
      <div class="spread small soft"><span>${progress
    ? `epoch ${progress.epoch} of ${progress.epochs} · step ${progress.step.toLocaleString("en")} of ${progress.num_steps.toLocaleString("en")}`
    : `${job.spec.training.epochs} epochs`}</span>
        <span class="push">${Math.round(100 * (fraction ?? 0))} %</span></div>
    </div>
    <${Facts} job=${job} now=${now} />
    <p class="spread small soft">
      <code title=${job.id}>${job.id}</code><span>created ${clock(job.created_at)}</span>
      ${job.priority !== 0 && html`<span>priority ${job.priority}</span>`}
      ${job.tags.map((tag) => html`<a class="tag" href="#/jobs?tag=${encodeURIComponent(tag)}">${tag}</a>`)}
    </p>
  </section>`;
}
