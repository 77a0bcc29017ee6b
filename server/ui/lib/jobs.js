// What happens to a job in the page when an event of it arrives.
import { getJson } from "./api.js";

const PAUSE_MS = 500;

/** The job with what a progress or metric event says of it. */
export function withEvent(job, event) {
  if (event.type === "job.progress" && event.data.num_steps) {
    const { epoch, epochs, step, num_steps, phase } = event.data;
    const progress = { ...job.progress, epoch, epochs, step, num_steps, fraction: step / num_steps };
    return { ...job, phase, progress };
  }
  if (event.type === "job.metric") {
    return { ...job, latest_metrics: { ...job.latest_metrics, ...event.data.values } };
  }
  return job;
}

/** Collects the ids of jobs that changed, and fetches each at most twice a second. */
export function refetcher(receive) {
  const waiting = new Set();
  let timer = null;

  async function flush() {
    const ids = [...waiting];
    waiting.clear();
    timer = null;
    for (const id of ids) {
      try {
        receive(id, await getJson(`/v1/jobs/${id}`));
      } catch (error) {
        if (error.status === 404) receive(id, null);
        else if (!(error instanceof TypeError) && error.status !== 503 && error.status !== 401) throw error;
      }
    }
  }
  return (id) => {
    waiting.add(id);
    timer ??= setTimeout(flush, PAUSE_MS);
  };
}

/** Progress alone is told by its event; everything else changes more of a job than its event says. */
export const changesMore = (event) => event.type !== "job.progress" || !event.data.num_steps;

/** When a job began to wait, began to run, and ended; `now` where it has not. */
export function times(job, now) {
  const end = job.finished_at ? Date.parse(job.finished_at) : now;
  const started = job.started_at ? Date.parse(job.started_at) : null;
  const queued = Date.parse(job.queued_at);
  const waits = started === null || started < queued;
  return {
    queuedSeconds: ((waits ? end : started) - queued) / 1000,
    runningSeconds: started === null ? null : (end - started) / 1000,
  };
}
