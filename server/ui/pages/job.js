import { html, useEffect, useMemo, useState } from "../lib/preact.js";
import { getJson, postJson } from "../lib/api.js";
import { title } from "../lib/format.js";
import { changesMore, refetcher, withEvent } from "../lib/jobs.js";
import { useEvents, whenLive } from "../lib/live.js";
import { useNow } from "../lib/now.js";
import { useSeries } from "../lib/series.js";
import { Artifacts } from "../components/artifacts.js";
import { Attempts } from "../components/attempts.js";
import { Cards } from "../components/cards.js";
import { Failure } from "../components/failure.js";
import { JobCharts } from "../components/job_charts.js";
import { JobHeader } from "../components/job_header.js";
import { Layers } from "../components/layers.js";
import { Log } from "../components/log.js";
import { Outcome } from "../components/outcome.js";
import { Panel } from "../components/panel.js";
import { Problem } from "../components/problem.js";
import { Timeline } from "../components/timeline.js";
import { TryIt } from "../components/try_it.js";

const ETA_MS = 4000;

/** The job, kept up to date: {job, error, receive}. */
function useJob(id) {
  const [job, setJob] = useState(null);
  const [error, setError] = useState(null);
  const receive = (found) => (found ? setJob(found) : setError(new Error("This job has been deleted.")));
  const refetch = useMemo(() => refetcher((_, found) => receive(found)), [id]);
  useEffect(() => {
    whenLive().then(() => getJson(`/v1/jobs/${id}`)).then(receive).catch(setError);
  }, [id]);
  const running = job?.status === "running";
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => refetch(id), ETA_MS); // when it will be done is told by the job alone
    return () => clearInterval(timer);
  }, [running]);
  useEvents((event) => {
    if (event.job_id !== id) return;
    if (changesMore(event)) refetch(id);
    setJob((known) => known && withEvent(known, event));
  });
  return { job, error, receive };
}

function useArtifacts(job) {
  const [artifacts, setArtifacts] = useState([]);
  useEffect(() => {
    if (job) getJson(job.links.artifacts).then((page) => setArtifacts(page.data)).catch(() => {});
  }, [job?.id, job?.status]);
  return artifacts;
}

function usePlan(job) {
  const [plan, setPlan] = useState(null);
  useEffect(() => {
    if (job) postJson("/v1/plans", { spec: job.spec }).then(setPlan).catch(() => {});
  }, [job?.id]);
  return plan;
}

export function JobPage({ id, params }) {
  const { job, error, receive } = useJob(id);
  const { series, version } = useSeries(id);
  const artifacts = useArtifacts(job);
  const plan = usePlan(job);
  const now = useNow(job !== null && !job.terminal);
  useEffect(() => {
    if (job) document.title = `${title(job)} · epochd`;
    return () => { document.title = "epochd"; };
  }, [job?.name]);
  if (!job) return html`<${Problem} error=${error} />`;
  return html`
    <${Problem} error=${error} />
    <${JobHeader} job=${job} now=${now} onChange=${receive} />
    <${Failure} error=${job.error} />
    <${Cards} job=${job} series=${series} plan=${plan} />
    <${JobCharts} job=${job} series=${series} version=${version} params=${params} />
    <${Outcome} job=${job} artifacts=${artifacts} />
    <${TryIt} job=${job} artifacts=${artifacts} />
    <${Log} job=${job} />
    <div class="grid">
      <div class="stack"><${Timeline} job=${job} /><${Attempts} job=${job} /></div>
      <${Artifacts} job=${job} artifacts=${artifacts} />
    </div>
    ${plan && html`<${Panel} title="Network" flush call=${{ path: "/v1/plans", method: "POST", body: { spec: job.spec } }}>
      <${Layers} plan=${plan} /></${Panel}>`}
    <${Panel} title="Spec" call=${{ path: job.links.self }}>
      <details><summary>Resolved, every default filled in</summary><pre class="scroll" tabindex="0" aria-label="Resolved spec">${JSON.stringify(job.spec, null, 2)}</pre></details>
    </${Panel}>`;
}
