import { html } from "../lib/preact.js";
import { request } from "../lib/api.js";
import { ago, bytes } from "../lib/format.js";
import { Chip } from "./chip.js";
import { DeleteButton } from "./delete_button.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { Scroll } from "./scroll.js";
import { say } from "./toast.js";

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
export function Dataset({ dataset, onDeleted }) {
  const { content, report } = dataset;
  const facts = content ? `${content.labels.length} classes · ${content.num_train + content.num_test} images · ${content.shape.join("×")} · ${bytes(dataset.bytes)} · ` : "";
  const remove = () => request(dataset.links.self, { method: "DELETE" }).then(onDeleted, (error) => say(error.message));
  const counted = report && Object.keys(report.splits).length > 0;
  return html`<${Panel} title=${dataset.name} call=${{ path: dataset.links.self }} actions=${html`<${Chip} status=${dataset.status} />`}>
    <div class="stack">
      <p class="small soft">${facts}${dataset.format.type.replaceAll("_", " ")} · ${ago(dataset.created_at)} · <code>${dataset.id}</code></p>
      ${report && html`<${Findings} report=${report} />`}
      ${(counted || dataset.links.samples) && html`<div class="grid">
        ${dataset.links.samples && html`<${Picture} path=${dataset.links.samples} alt="Images of ${dataset.name}" />`}
        ${counted && html`<${Classes} report=${report} />`}
      </div>`}
      <div class="spread">${content && html`<a class="button" href="#/new?dataset=${dataset.id}">Train on it</a>`}
        ${dataset.status !== "validating" && html`<${DeleteButton} onDelete=${remove} what=${dataset.name} />`}</div>
    </div>
  </${Panel}>`;
}
