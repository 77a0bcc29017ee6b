import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { percent } from "../lib/format.js";
import { Classes } from "./classes.js";
import { Confused } from "./confused.js";
import { Confusion } from "./confusion.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";

const PICTURES = [
  ["filters.png", "Filters of the first layer", "Each filter by itself: grey is zero, black and white its largest weights"],
  ["augmentation.png", "What the network sees", "Training images as augmentation makes them", "First each image as it is, then as some epochs see it."],
  ["gan_samples.png", "Generated images", "Images that the generator made"],
];
const UNCHANGED = "The spec asks for no augmentation: every epoch sees each image as it is.";

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
    ${split && html`<div class="stack">
      <${Panel} title="Confusion matrix (${name}, ${percent(split.accuracy, 2)})" call=${{ path: path("report.json") }}>
        <${Confusion} split=${split} /></${Panel}>
      ${has("most_confused.png") && html`<${Panel} title="Surest and wrong (${name})" call=${{ path: path("most_confused.png") }}>
        <${Confused} path=${path("most_confused.png")} confused=${split.most_confused} /></${Panel}>`}
    </div>`}
    <div class="stack">
      ${split && html`<${Panel} title="Per class (${name})" flush call=${{ path: path("report.json") }}><${Classes} split=${split} /></${Panel}>`}
      ${PICTURES.filter(([file]) => has(file)).map(([file, title, alt, words]) => html`<${Panel} key=${file} title=${title} call=${{ path: path(file) }}>
        <${Picture} path=${path(file)} alt=${alt} wide />
        ${words && html`<p class="small soft">${job.spec.augmentation.length ? words : UNCHANGED}</p>`}</${Panel}>`)}
    </div>
  </div>`;
}
