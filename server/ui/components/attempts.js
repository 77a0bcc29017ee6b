import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { clock, duration, secondsBetween } from "../lib/format.js";
import { Panel } from "./panel.js";
import { Scroll } from "./scroll.js";

export function Attempts({ job }) {
  const [attempts, setAttempts] = useState([]);
  useEffect(() => {
    getJson(job.links.attempts).then((page) => setAttempts(page.data)).catch(() => {});
  }, [job.attempt, job.status]);
  return html`<${Panel} title="Attempts" flush call=${{ path: job.links.attempts }}><${Scroll} label="Attempts"><table>
    <thead><tr><th scope="col">#</th><th scope="col">Worker</th><th scope="col">Began</th><th scope="col">Took</th>
      <th scope="col">Steps</th><th scope="col">End</th></tr></thead>
    <tbody>${attempts.map((one) => html`<tr key=${one.number}>
      <td>${one.number}</td><td>${one.worker} <span class="soft">${one.device}</span></td><td>${clock(one.started_at)}</td>
      <td>${one.ended_at ? duration(secondsBetween(one.started_at, one.ended_at)) : "runs"}</td>
      <td>${one.first_step} – ${one.last_step ?? "…"}</td>
      <td>${one.reason?.replaceAll("_", " ") ?? "–"}${one.signal ? ` (signal ${one.signal})` : ""}</td></tr>`)}
    ${attempts.length === 0 && html`<tr><td colspan="6" class="soft">No worker has tried it yet.</td></tr>`}</tbody>
  </table></${Scroll}></${Panel}>`;
}
