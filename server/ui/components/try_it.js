import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { request } from "../lib/api.js";
import { percent } from "../lib/format.js";
import { LAYOUTS } from "../lib/layouts.js";
import { Bar } from "./bar.js";
import { Panel } from "./panel.js";

const NETWORK = "model.onnx";
const PICTURES = "image/png,image/jpeg,image/webp,image/bmp";
const isArray = (file) => /\.np[yz]$/i.test(file.name);
const MAX_SHOWN = 50;
const NOT_SEEN = {
  transparency: "its transparency was dropped",
  several_frames: "only its first frame was looked at",
  turned: "it was not turned as EXIF asks",
};

/** Asks for one file: {file, url} becomes {…, images} with their predictions, or {…, error}. */
async function asked(path, entry) {
  const body = new FormData();
  body.append("image", entry.file);
  try {
    const answer = await (await request(path, { method: "POST", body })).json();
    return { ...entry, images: answer.data };
  } catch (error) {
    const [fault] = error.problem?.errors ?? [];
    return { ...entry, error: (fault?.message ?? error.message).replace(/^image 0, ".*": /, "") };
  }
}

function Classes({ image }) {
  return html`<ol>${image.predictions.map((one) => html`<li key=${one.index}><span class="wrap">${one.label}</span>
    <${Bar} fraction=${one.probability} status="" label="Probability of ${one.label}" />
    <span class="number">${percent(one.probability, 1)}</span></li>`)}</ol>`;
}

/** The picture, or what the file is instead. */
function Thumbnail({ file, url }) {
  const [isPicture, setIsPicture] = useState(true);
  const other = isArray(file) ? "array" : !isPicture && "no picture";
  return other ? html`<span class="other soft small">${other}</span>` : html`<img src=${url} alt="" onError=${() => setIsPicture(false)} />`;
}

function Predicted({ entry }) {
  const { file, url, images, error } = entry;
  const [first] = images ?? [];
  return html`<li>
    <${Thumbnail} file=${file} url=${url} />
    <div>
      <p class="wrap"><b>${file.name}</b>${first && html`<span class="small soft"> ${first.width} × ${first.height}
        ${first.warnings.map((one) => ` · ${NOT_SEEN[one] ?? one}`)}</span>`}</p>
      ${error && html`<p class="bad small" role="alert">${error}</p>`}
      ${!images && !error && html`<p class="soft small" role="status">asking …</p>`}
      ${images?.map((image) => html`<div key=${image.position}>
        ${image.position !== null && html`<p class="small soft">image ${image.position}</p>`}
        <${Classes} image=${image} /></div>`)}
    </div></li>`;
}

/** Files that are asked about one after the other, the newest first: [entries, take]. */
function usePredictions() {
  const [entries, setEntries] = useState([]);
  const queue = useRef(Promise.resolve());
  const urls = useRef([]);
  useEffect(() => () => urls.current.forEach((url) => URL.revokeObjectURL(url)), []);
  const take = (files, path) => {
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

/** Pictures and arrays of one's own, dropped or chosen, and what the job's network says of them. */
export function TryIt({ job, artifacts }) {
  const [layout, setLayout] = useState("");
  const path = `${job.links.self}/predict${layout && `?layout=${layout}`}`;
  const [entries, take] = usePredictions();
  const [over, setOver] = useState(false);
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files, path);
  };
  const chosen = (event) => {
    take(event.target.files, path);
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
      <label>Images, or drop some here<input type="file" multiple accept="${PICTURES},.npy,.npz" onChange=${chosen} /></label>
      ${entries.some((entry) => isArray(entry.file)) && html`<label>Axes of arrays<select value=${layout}
        onChange=${(event) => setLayout(event.target.value)}>${LAYOUTS.map(([axes, name]) => html`<option value=${axes}>${name}</option>`)}</select></label>`}
    </div>
    <ul class="tried">${entries.map((entry) => html`<${Predicted} key=${entry.url} entry=${entry} />`)}</ul>
  </${Panel}>`;
}
