import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { percent } from "../lib/format.js";
import { Classes } from "./classes.js";
import { Confusion } from "./confusion.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";

/** What the trained network does on images that it has not learned from. */
export function Outcome({ job, artifacts }) {
  const [report, setReport] = useState(null);
  const has = (name) => artifacts.some((file) => file.name === name);
  const path = (name) => `${job.links.artifacts}/${name}`;
  const there = has("report.json");
  useEffect(() => {
    if (there) getJson(path("report.json")).then(setReport).catch(() => {});
  }, [there]);
  const [name, split] = Object.entries(report?.splits ?? {}).find(([, found]) => found.confusion_matrix) ?? [];
  return html`<div class="grid">
    ${split && html`
      <${Panel} title="Confusion matrix (${name}, ${percent(split.accuracy, 2)})" call=${{ path: path("report.json") }}>
        <${Confusion} split=${split} /></${Panel}>
      <${Panel} title="Per class (${name})" flush call=${{ path: path("report.json") }}><${Classes} split=${split} /></${Panel}>`}
    ${has("augmentation.png") && html`<${Panel} title="What the network sees" call=${{ path: path("augmentation.png") }}>
      <${Picture} path=${path("augmentation.png")} alt="Training images as augmentation makes them" wide /></${Panel}>`}
    ${has("samples.png") && html`<${Panel} title="Generated images" call=${{ path: path("samples.png") }}>
      <${Picture} path=${path("samples.png")} alt="Images that the generator made" wide /></${Panel}>`}
  </div>`;
}
