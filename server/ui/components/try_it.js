import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { request } from "../lib/api.js";
import { percent } from "../lib/format.js";
import { Bar } from "./bar.js";
import { Panel } from "./panel.js";

const NETWORK = "model.onnx";
const MAX_SHOWN = 50;
const NOT_SEEN = {
  transparency: "its transparency was dropped",
  several_frames: "only its first frame was looked at",
  turned: "it was not turned as EXIF asks",
};

/** Asks for one image: {file, url} becomes {…, image} with its predictions, or {…, error}. */
async function asked(path, entry) {
  const body = new FormData();
  body.append("image", entry.file);
  try {
    const answer = await (await request(path, { method: "POST", body })).json();
    return { ...entry, image: answer.data[0] };
  } catch (error) {
    const [fault] = error.problem?.errors ?? [];
    return { ...entry, error: (fault?.message ?? error.message).replace(/^image 0, ".*": /, "") };
  }
}

function Predicted({ entry }) {
  const { file, url, image, error } = entry;
  return html`<li>
    <img src=${url} alt="" />
    <div>
      <p class="wrap"><b>${file.name}</b>${image && html`<span class="small soft"> ${image.width} × ${image.height}
        ${image.warnings.map((one) => ` · ${NOT_SEEN[one] ?? one}`)}</span>`}</p>
      ${error && html`<p class="bad small" role="alert">${error}</p>`}
      ${!image && !error && html`<p class="soft small" role="status">asking …</p>`}
      ${image && html`<ol>${image.predictions.map((one) => html`<li key=${one.index}><span class="wrap">${one.label}</span>
        <${Bar} fraction=${one.probability} status="" label="Probability of ${one.label}" />
        <span class="number">${percent(one.probability, 1)}</span></li>`)}</ol>`}
    </div></li>`;
}

/** Images that are asked one after the other, the newest first: [entries, take]. */
function usePredictions(path) {
  const [entries, setEntries] = useState([]);
  const queue = useRef(Promise.resolve());
  const urls = useRef([]);
  useEffect(() => () => urls.current.forEach((url) => URL.revokeObjectURL(url)), []);
  const take = (files) => {
    const added = [...files].slice(0, MAX_SHOWN).map((file) => ({ file, url: URL.createObjectURL(file) }));
    urls.current.push(...added.map((one) => one.url));
    setEntries((known) => [...added, ...known].slice(0, MAX_SHOWN));
    added.forEach((one) => {
      queue.current = queue.current.then(() => asked(path, one))
        .then((done) => setEntries((known) => known.map((other) => (other.url === done.url ? done : other))));
    });
  };
  return [entries, take];
}

/** Images of one's own, dropped or chosen, and what the job's network says of them. */
export function TryIt({ job, artifacts }) {
  const path = `${job.links.self}/predict`;
  const [entries, take] = usePredictions(path);
  const [over, setOver] = useState(false);
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files);
  };
  const chosen = (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file may be chosen again
  };
  if (job.status !== "succeeded" || artifacts.length === 0) return null;
  if (!artifacts.some((file) => file.name === NETWORK)) {
    return html`<${Panel} title="Try it"><p class="soft">This network could not be exported as ${NETWORK}, so that it cannot
      be tried here. The timeline says why; its weights are among the artifacts.</p></${Panel}>`;
  }
  return html`<${Panel} title="Try it" call=${{ path, method: "POST", file: "image" }}>
    <div class="drop ${over ? "over" : ""}" onDrop=${dropped} onDragLeave=${() => setOver(false)}
      onDragOver=${(event) => { event.preventDefault(); setOver(true); }}>
      <label>Images, or drop some here<input type="file" multiple accept="image/png,image/jpeg,image/webp,image/bmp" onChange=${chosen} /></label>
    </div>
    <ul class="tried">${entries.map((entry) => html`<${Predicted} key=${entry.url} entry=${entry} />`)}</ul>
  </${Panel}>`;
}
