import { html, useState } from "../lib/preact.js";
import { title } from "../lib/format.js";
import { flat } from "../lib/flat.js";
import { Panel } from "./panel.js";
import { Scroll } from "./scroll.js";

const text = (value) => (value === undefined ? "–" : JSON.stringify(value));

/** The specs side by side: where they differ, or all of them. */
export function ComparedFields({ jobs }) {
  const [all, setAll] = useState(false);
  const specs = jobs.map((job) => flat(job.spec));
  const names = [...new Set(specs.flatMap(Object.keys))];
  const differs = (name) => new Set(specs.map((spec) => text(spec[name]))).size > 1;
  const shown = all ? names : names.filter(differs);
  const toggle = html`<label class="row"><input type="checkbox" checked=${!all} onChange=${() => setAll(!all)} />only what differs</label>`;
  return html`<${Panel} title="Specs" flush actions=${toggle} call=${jobs.map((job) => ({ path: job.links.self }))}><${Scroll} label="Specs"><table>
    <thead><tr><th scope="col">Field</th>${jobs.map((job, at) => html`<th scope="col"><span class="s${at}">●</span> ${title(job)}</th>`)}</tr></thead>
    <tbody>${shown.map((name) => html`<tr key=${name}><td><code>${name}</code></td>${specs.map((spec) => html`<td class="wrap">${text(spec[name])}</td>`)}</tr>`)}
    ${shown.length === 0 && html`<tr><td colspan=${jobs.length + 1} class="soft">The specs are the same.</td></tr>`}</tbody>
  </table></${Scroll}></${Panel}>`;
}
