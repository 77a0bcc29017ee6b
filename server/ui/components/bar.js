import { html } from "../lib/preact.js";

export function Bar({ fraction, status, label }) {
  const share = Math.round(1000 * (fraction ?? 0)) / 10;
  return html`<span class="bar ${status}" role="progressbar" aria-label=${label} aria-valuenow=${share} aria-valuemin="0"
    aria-valuemax="100"><i style=${{ width: `${share}%` }} /></span>`;
}
