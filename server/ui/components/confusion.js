import { html } from "../lib/preact.js";
import { percent } from "../lib/format.js";
import { Scroll } from "./scroll.js";

const MAX_CLASSES = 20;
const MAX_LEVEL = 3; // letters of a name that fit above a column
const STRONG = 0.55;

function Cell({ value, total, right, labels }) {
  const share = total ? value / total : 0;
  const kind = right ? "right" : "wrong";
  return html`<td class="${kind} ${share > STRONG ? "strong" : ""}" title="${labels[0]} taken for ${labels[1]}: ${value} of ${total} (${percent(share)})">
    <i style=${{ opacity: value ? 0.12 + 0.88 * share : 0 }} /><span>${value || ""}</span></td>`;
}

function Matrix({ labels, rows }) {
  const direction = labels.some((label) => label.length > MAX_LEVEL) ? "upright" : "";
  return html`<${Scroll} label="Confusion matrix"><table class="matrix">
    <thead><tr><th scope="col"><span class="hidden">True class</span></th>${labels.map((label) => html`<th scope="col" class=${direction} title=${label}>${label}</th>`)}</tr></thead>
    <tbody>${rows.map((row, at) => {
    const total = row.reduce((sum, value) => sum + value, 0);
    return html`<tr><th scope="row" title=${labels[at]}>${labels[at]}</th>${row.map((value, to) => html`<${Cell} value=${value}
        total=${total} right=${at === to} labels=${[labels[at], labels[to]]} />`)}</tr>`;
  })}</tbody>
  </table></${Scroll}>`;
}

function confusions(labels, rows) {
  const pairs = rows.flatMap((row, at) => row.map((value, to) => ({ value, at, to })));
  return pairs.filter(({ value, at, to }) => value && at !== to).sort((a, b) => b.value - a.value).slice(0, 5)
    .map(({ value, at, to }) => `${labels[at]} taken for ${labels[to]}: ${value}`);
}

/** Rows are the true classes, columns what the network said. */
export function Confusion({ split }) {
  const labels = split.classes.map((one) => one.label);
  const rows = split.confusion_matrix;
  const worst = confusions(labels, rows);
  return html`
    ${labels.length <= MAX_CLASSES && html`<${Matrix} labels=${labels} rows=${rows} />`}
    <p class="small soft">Rows: the true class. Columns: what the network said.
      ${worst.length ? ` Most confused: ${worst.join("; ")}.` : " Not one is confused."}</p>`;
}
