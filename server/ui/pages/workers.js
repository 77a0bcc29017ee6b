import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { ago, clock } from "../lib/format.js";
import { useNow } from "../lib/now.js";
import { Chip } from "../components/chip.js";
import { Panel } from "../components/panel.js";
import { Problem } from "../components/problem.js";
import { Scroll } from "../components/scroll.js";

const PAUSE_MS = 2000;

/** What is asked again every two seconds; workers have no events. */
function usePolled(path) {
  const [page, setPage] = useState({ data: [] });
  const [error, setError] = useState(null);
  useEffect(() => {
    const ask = () => getJson(path).then((found) => { setPage(found); setError(null); }).catch(setError);
    ask();
    const timer = setInterval(ask, PAUSE_MS);
    return () => clearInterval(timer);
  }, [path]);
  return [page.data, error];
}

function Queue({ queue, now }) {
  const cards = [
    ["running", queue.running, `on ${queue.slots} slot${queue.slots === 1 ? "" : "s"}`], ["queued", queue.queued, `${queue.claimable} claimable`],
    ["paused", queue.paused, ""], ["waits longest", queue.oldest_queued_at ? ago(queue.oldest_queued_at, now) : "–", ""],
  ];
  return html`<${Panel} title="Queue" call=${{ path: "/v1/queues" }}><div class="facts">${cards.map(([name, value, note]) => html`<div>
    <div class="name">${name}</div><div class="value">${value}</div><div class="small soft">${note}</div></div>`)}</div></${Panel}>`;
}

export function WorkersPage() {
  const [workers, error] = usePolled("/v1/workers");
  const [queues] = usePolled("/v1/queues");
  const now = useNow(true);
  return html`<h1>Workers and queue</h1>
    <${Problem} error=${error} />
    ${queues.map((queue) => html`<${Queue} key=${queue.name} queue=${queue} now=${now} />`)}
    <${Panel} title="Workers" flush call=${{ path: "/v1/workers" }}><${Scroll} label="Workers"><table>
      <thead><tr><th scope="col">Worker</th><th scope="col">Status</th><th scope="col">Device</th><th scope="col">Slots</th>
        <th scope="col">Threads</th><th scope="col">Trains</th><th scope="col">Seen</th></tr></thead>
      <tbody>${workers.map((worker) => html`<tr key=${worker.id}>
        <td><b>${worker.id}</b> <span class="soft small">${worker.host}</span></td><td><${Chip} status=${worker.status} /></td>
        <td>${worker.device}</td><td>${worker.num_jobs} of ${worker.slots}</td><td>${worker.threads}</td>
        <td>${worker.jobs.length ? worker.jobs.map((id) => html`<a href="#/jobs/${id}">…${id.slice(-6)}</a> `) : "–"}</td>
        <td class="soft" title=${clock(worker.last_seen_at)}>${ago(worker.last_seen_at, now)}</td></tr>`)}
      ${workers.length === 0 && html`<tr><td colspan="7" class="soft">No worker is there: start one with <code>python -m worker</code>.</td></tr>`}
      </tbody></table></${Scroll}></${Panel}>`;
}
