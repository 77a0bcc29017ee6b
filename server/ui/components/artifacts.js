import { html } from "../lib/preact.js";
import { download } from "../lib/api.js";
import { bytes } from "../lib/format.js";
import { Icon } from "./icon.js";
import { Panel } from "./panel.js";
import { Scroll } from "./scroll.js";
import { say } from "./toast.js";

const WHAT = {
  "model.safetensors": "the trained weights",
  "model.onnx": "the network for onnxruntime",
  "bundle.tar": "everything in one file",
  "report.html": "the result as one page",
  "report.json": "the result as data",
  "metrics.csv": "every point of every series",
  "spec.json": "the resolved spec",
  "labels.json": "the names of the classes",
  "onnx_parity.json": "how near ONNX is to torch",
  "augmentation.png": "what the network sees",
  "confusion_matrix.png": "which class was taken for which",
  "most_confused.png": "test images that it is surest about, and wrong",
  "filters.png": "the filters of the first layer",
  "last_good.safetensors": "the weights before the loss was not finite",
  "generator.safetensors": "the weights of the generator",
  "gan_samples.png": "what the generator makes",
  "events.out.tfevents": "for TensorBoard",
};

export function Artifacts({ job, artifacts }) {
  const path = (name) => `${job.links.artifacts}/${encodeURIComponent(name)}`;
  const get = (name) => download(path(name), name).catch((error) => say(error.message));
  return html`<${Panel} title="Artifacts" flush call=${{ path: job.links.artifacts }}><${Scroll} label="Artifacts"><table>
    <thead><tr><th scope="col">File</th><th scope="col" class="number">Size</th><th scope="col" class="digest">SHA-256</th><th scope="col"><span class="hidden">Download</span></th></tr></thead>
    <tbody>${artifacts.map((file) => html`<tr key=${file.name}>
      <td><b>${file.name}</b><br /><span class="small soft">${WHAT[file.name] ?? file.media_type}</span></td>
      <td class="number">${bytes(file.bytes)}</td>
      <td class="digest"><code title=${file.sha256}>${file.sha256.slice(0, 12)}…</code></td>
      <td class="number"><button class="small" onClick=${() => get(file.name)} aria-label="Download ${file.name}"><${Icon} name="download" /><span class="words">Download</span></button></td>
    </tr>`)}
    ${artifacts.length === 0 && html`<tr><td colspan="4" class="soft">${job.terminal ? "There are none." : "Files come when the job ends."}</td></tr>`}</tbody>
  </table></${Scroll}></${Panel}>`;
}
