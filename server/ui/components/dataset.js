import { html } from "../lib/preact.js";
import { ago, bytes } from "../lib/format.js";
import { Chip } from "./chip.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { Scroll } from "./scroll.js";

function Findings({ report }) {
  return report.findings.map((finding) => html`<div class="notice ${finding.severity === "error" ? "error" : "warning"}">
    <p><b>${finding.code.replaceAll("_", " ")}</b> ${finding.message}</p>
    ${finding.files.length > 0 && html`<p class="small wrap">${finding.files.join(", ")}${finding.count > finding.files.length ? ` and ${finding.count - finding.files.length} more` : ""}</p>`}
  </div>`);
}

function Classes({ report }) {
  const splits = Object.entries(report.splits);
  const labels = [...new Set(splits.flatMap(([, split]) => Object.keys(split.per_class)))];
  return html`<${Scroll} label="Images of each class"><table><thead><tr><th scope="col">Class</th>${splits.map(([name]) => html`<th scope="col" class="number">${name}</th>`)}</tr></thead>
    <tbody>${labels.map((label) => html`<tr key=${label}><td>${label}</td>${splits.map(([, split]) => html`<td class="number">${split.per_class[label] ?? 0}</td>`)}</tr>`)}
    <tr><td><b>All</b></td>${splits.map(([, split]) => html`<td class="number"><b>${split.num_images}</b></td>`)}</tr></tbody></table></${Scroll}>`;
}

/** A dataset with what validation found, and how its images look. */
export function Dataset({ dataset }) {
  const { content, report } = dataset;
  const facts = content ? `${content.labels.length} classes · ${content.num_train + content.num_test} images · ${content.shape.join("×")} · ${bytes(dataset.bytes)} · ` : "";
  return html`<${Panel} title=${dataset.name} call=${{ path: dataset.links.self }} actions=${html`<${Chip} status=${dataset.status} />`}>
    <div class="stack">
      <p class="small soft">${facts}${dataset.format.type.replaceAll("_", " ")} · ${ago(dataset.created_at)} · <code>${dataset.id}</code></p>
      ${report && html`<${Findings} report=${report} />`}
      ${(report || dataset.links.samples) && html`<div class="grid">
        ${dataset.links.samples && html`<${Picture} path=${dataset.links.samples} alt="Images of ${dataset.name}" />`}
        ${report && html`<${Classes} report=${report} />`}
      </div>`}
      ${content && html`<div><a class="button" href="#/new?dataset=${dataset.id}">Train on it</a></div>`}
    </div>
  </${Panel}>`;
}
