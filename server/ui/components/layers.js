import { html } from "../lib/preact.js";
import { bytes, count } from "../lib/format.js";
import { Scroll } from "./scroll.js";

const shape = (sizes) => sizes.join("×");

/** The network, layer by layer, for one image. */
export function Layers({ plan }) {
  return html`<${Scroll} label="Layers"><table>
    <thead><tr><th scope="col">Layer</th><th scope="col">Type</th><th scope="col">Output</th><th scope="col" class="number">Parameters</th>
      <th scope="col" class="number">MACs</th><th scope="col" class="number">Kept</th></tr></thead>
    <tbody>${plan.layers.map((layer) => html`<tr key=${layer.name}><td><b>${layer.name}</b></td><td class="soft">${layer.type}</td>
      <td><code>${shape(layer.output_shape)}</code></td><td class="number">${layer.num_parameters ? count(layer.num_parameters) : "–"}</td>
      <td class="number">${layer.macs ? count(layer.macs) : "–"}</td><td class="number soft">${bytes(layer.activation_bytes)}</td></tr>`)}
      <tr><td><b>Total</b></td><td /><td /><td class="number"><b>${count(plan.totals.num_parameters)}</b></td>
        <td class="number"><b>${count(plan.totals.macs)}</b></td><td class="number">${bytes(plan.totals.activation_bytes)}</td></tr></tbody>
  </table></${Scroll}>`;
}
