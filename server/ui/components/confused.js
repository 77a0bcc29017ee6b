import { html } from "../lib/preact.js";
import { percent } from "../lib/format.js";
import { Picture } from "./picture.js";
import { Scroll } from "./scroll.js";

/** The test images that the network is surest about, and wrong: their sheet, and the same as a table. */
export function Confused({ path, confused }) {
  return html`<${Scroll} label="Most confused images">
      <${Picture} path=${path} alt="${confused.length} test images with their class and what the network said" whole /></${Scroll}>
    <details><summary>As a table</summary><${Scroll} label="Table of the most confused images"><table>
      <thead><tr><th scope="col" class="number">Place in the split</th><th scope="col">Class</th><th scope="col">Said</th>
        <th scope="col" class="number">Probability</th></tr></thead>
      <tbody>${confused.map((one) => html`<tr key=${one.index}><td class="number">${one.index}</td><td>${one.label}</td>
        <td>${one.predicted}</td><td class="number">${percent(one.probability)}</td></tr>`)}</tbody></table></${Scroll}></details>`;
}
