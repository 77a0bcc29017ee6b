import { html } from "../lib/preact.js";
import { percent } from "../lib/format.js";
import { Bar } from "./bar.js";
import { Scroll } from "./scroll.js";

const value = (share, label) => html`<td><span class="meter"><${Bar} fraction=${share} status="" label=${label} /></span>${percent(share)}</td>`;

export function Classes({ split }) {
  return html`<${Scroll} label="Per class"><table>
    <thead><tr><th scope="col">Class</th><th scope="col">Precision</th><th scope="col">Recall</th><th scope="col">F1</th>
      <th scope="col" class="number">Images</th></tr></thead>
    <tbody>${split.classes.map((one) => html`<tr key=${one.label}><td>${one.label}</td>
      ${value(one.precision, `Precision of ${one.label}`)}${value(one.recall, `Recall of ${one.label}`)}${value(one.f1, `F1 of ${one.label}`)}
      <td class="number">${one.support.toLocaleString("en")}</td></tr>`)}</tbody>
  </table></${Scroll}>`;
}
