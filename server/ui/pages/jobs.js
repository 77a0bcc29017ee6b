import { html, useState } from "../lib/preact.js";
import { select, useJobs } from "../lib/job_list.js";
import { useNow } from "../lib/now.js";
import { go, setParams } from "../lib/router.js";
import { JobRow } from "../components/job_row.js";
import { Problem } from "../components/problem.js";

const STATUSES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"];
const HEADS = [
  ["name", "Job"], ["status", "Status"], ["progress", "Progress"], ["best", "Best"], ["accuracy", "Accuracy"],
  [null, "Curve"], ["created", "Created"],
];
const ROWS = 100;
const MAX_COMPARED = 8;

function Filters({ jobs, status, q, tag, complete }) {
  const toggle = (name) => {
    const chosen = status.includes(name) ? status.filter((other) => other !== name) : [...status, name];
    setParams({ status: chosen.join(",") });
  };
  const num = (name) => [...jobs.values()].filter((job) => job.status === name).length;
  return html`<div class="filters">
    <input type="search" placeholder="Search name, tag, dataset, id" aria-label="Search jobs" value=${q}
      onInput=${(event) => setParams({ q: event.target.value })} />
    <div class="spread" role="group" aria-label="Status">
      ${STATUSES.map((name) => html`<button class="filter ${status.includes(name) ? "on" : ""}" aria-pressed=${status.includes(name)}
        onClick=${() => toggle(name)}>${name} <span class="soft">${num(name)}</span></button>`)}
      ${tag && html`<button class="filter on" onClick=${() => setParams({ tag: null })} aria-label="No longer only tag ${tag}">tag ${tag} ×</button>`}
      ${!complete && html`<span class="small soft">loading…</span>`}
    </div>
  </div>`;
}

function Head({ column, name, sort }) {
  if (!column) return html`<th scope="col">${name}</th>`;
  const direction = sort === column ? "ascending" : sort === `-${column}` ? "descending" : null;
  const next = direction === "descending" ? column : `-${column}`;
  return html`<th scope="col" aria-sort=${direction}><button class="plain small" onClick=${() => setParams({ sort: next })}>
    ${name}${direction ? (direction === "ascending" ? " ↑" : " ↓") : ""}</button></th>`;
}

const Empty = ({ any }) => html`<div class="empty">
  <h2>${any ? "No job is like that" : "No jobs yet"}</h2>
  <p>${any ? "Other filters may find some." : "Describe a network, see what it would cost, and train it."}</p>
  ${any ? html`<button onClick=${() => setParams({ status: null, q: null, tag: null })}>Show all jobs</button>`
    : html`<p><a class="button primary" href="#/new">Start from an example</a></p>
      <p class="small">or <a href="#/datasets">train on your own images</a></p>`}
</div>`;

export function JobsPage({ params }) {
  const { jobs, complete, older, loadOlder, error } = useJobs();
  const [chosen, setChosen] = useState([]);
  const [rows, setRows] = useState(ROWS);
  const status = (params.get("status") ?? "").split(",").filter(Boolean);
  const [q, tag, sort] = [params.get("q") ?? "", params.get("tag"), params.get("sort") ?? "-created"];
  const found = select(jobs, { status, q, tag, sort });
  const now = useNow(found.some((job) => !job.terminal));
  const choose = (id) => setChosen(chosen.includes(id) ? chosen.filter((other) => other !== id)
    : [...chosen, id].slice(-MAX_COMPARED));
  return html`
    <div class="spread"><h1>Jobs</h1>
      <span class="push" />
      ${chosen.length > 0 && html`<button class="plain" onClick=${() => setChosen([])}>Choose none</button>`}
      <button disabled=${chosen.length < 2} onClick=${() => go("/compare", { ids: chosen.join(",") })}
        title="Choose two to eight jobs">Compare${chosen.length ? ` ${chosen.length}` : ""}</button>
    </div>
    <${Filters} jobs=${jobs} status=${status} q=${q} tag=${tag} complete=${complete || error} />
    <${Problem} error=${error} />
    <section class="panel scroll" aria-label="Jobs">
      ${found.length === 0 ? complete && html`<${Empty} any=${jobs.size > 0} />` : html`<table class="jobs">
        <thead><tr><th scope="col"><span class="hidden">Compare</span></th>
          ${HEADS.map(([column, name]) => html`<${Head} column=${column} name=${name} sort=${sort} />`)}</tr></thead>
        <tbody>${found.slice(0, rows).map((job) => html`<${JobRow} key=${job.id} job=${job} now=${now}
          chosen=${chosen.includes(job.id)} onChoose=${choose} />`)}</tbody>
      </table>`}
    </section>
    ${found.length > rows && html`<button onClick=${() => setRows(rows + ROWS)}>Show more (${found.length - rows})</button>`}
    ${older && html`<p class="spread small soft">Searched and sorted are the newest ${jobs.size.toLocaleString("en")} jobs.
      <button class="small" disabled=${!complete} onClick=${loadOlder}>Load older ones</button></p>`}`;
}
