import { html, useState } from "../lib/preact.js";
import { postJson } from "../lib/api.js";
import { bytes, percent } from "../lib/format.js";
import { LAYOUTS } from "../lib/layouts.js";
import { tarOf } from "../lib/tar.js";
import { upload } from "../lib/upload.js";
import { Bar } from "./bar.js";
import { Problem } from "./problem.js";

const FORMATS = [
  ["image_folder", "Folders of images"], ["csv", "Images and a CSV table"], ["npz", "NPZ arrays"], ["idx", "IDX, as MNIST"],
];
const IMAGES = ["image_folder", "csv"];
const START = { name: "", type: "image_folder", size: "32", channels: "3", layout: "", fraction: "20" };

function formatOf({ type, size, channels, layout, fraction }) {
  const images = IMAGES.includes(type) ? { channels: Number(channels), ...(size && { image_size: [Number(size), Number(size)] }) } : {};
  return { type, ...images, ...(type === "npz" && layout && { layout }), ...(fraction && type !== "idx" && { test_fraction: Number(fraction) / 100 }) };
}

/** A file becomes a dataset: chosen or dropped, sent, registered. */
export function UploadForm({ onDone }) {
  const [file, setFile] = useState(null);
  const [fields, setFields] = useState(START);
  const [state, setState] = useState(null);
  const [error, setError] = useState(null);
  const [over, setOver] = useState(false);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const take = (chosen) => {
    if (!chosen) return;
    setFile(chosen);
    const type = chosen.name.endsWith(".npz") ? "npz" : fields.type;
    setFields({ ...fields, type, name: fields.name || chosen.name.replace(/\.(tar\.gz|tgz|zip|tar|npz)$/i, "") });
  };
  const takeFolder = ({ target }) => {
    setError(null);
    try {
      if (target.files.length) take(tarOf(target.files, `${target.files[0].webkitRelativePath.split("/")[0]}.tar`));
    } catch (reason) {
      setError(reason);
    }
  };
  const send = async (event) => {
    event.preventDefault();
    setError(null);
    try {
      const sent = await upload(file, (phase, fraction) => setState({ phase, fraction }));
      onDone(await postJson("/v1/datasets", { upload_id: sent.id, name: fields.name, format: formatOf(fields) }));
      setFile(null);
      setFields(START);
      event.target.reset();
    } catch (reason) {
      setError(reason);
    } finally {
      setState(null);
    }
  };
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files[0]);
  };
  const images = IMAGES.includes(fields.type);
  return html`<form class="drop ${over ? "over" : ""}" onSubmit=${send} onDrop=${dropped} onDragLeave=${() => setOver(false)}
    onDragOver=${(event) => { event.preventDefault(); setOver(true); }}>
    <div class="fields wide">
      <label>zip, tar or npz file, or drop one here<input type="file" accept=".zip,.tar,.gz,.tgz,.npz" onChange=${(event) => take(event.target.files[0])} /></label>
      <label>Or a folder with one folder of images per class<input type="file" webkitdirectory onChange=${takeFolder} /></label>
    </div>
    <div class="fields">
      <label>Name<input required maxlength="200" value=${fields.name} onInput=${set("name")} /></label>
      <label>Format<select value=${fields.type} onChange=${set("type")}>${FORMATS.map(([type, name]) => html`<option value=${type}>${name}</option>`)}</select></label>
      ${images && html`<label>Pixels a side (empty: as they are)<input type="number" min="1" value=${fields.size} onInput=${set("size")} /></label>
        <label>Colour<select value=${fields.channels} onChange=${set("channels")}><option value="3">RGB</option><option value="1">grey</option></select></label>`}
      ${fields.type === "npz" && html`<label>Axes<select value=${fields.layout} onChange=${set("layout")}>${LAYOUTS.map(([axes, name]) => html`<option value=${axes}>${name}</option>`)}</select></label>`}
      ${fields.type !== "idx" && html`<label>% for testing (empty: as divided)<input type="number" min="1" max="99" value=${fields.fraction} onInput=${set("fraction")} /></label>`}
    </div>
    <div class="spread"><button class="primary" disabled=${!file || state !== null}>Upload</button>
      <span class="small soft" role="status">${state ? `${state.phase} ${percent(state.fraction, 0)}` : file ? `${file.name}, ${bytes(file.size)}` : ""}</span></div>
    ${state && html`<${Bar} fraction=${state.fraction} status="running" label="Upload" />`}
    <${Problem} error=${error} />
  </form>`;
}
