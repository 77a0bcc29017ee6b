import { html } from "../lib/preact.js";

/** What went wrong with a request. */
export function Problem({ error }) {
  if (!error) return null;
  const items = error.problem?.errors ?? [];
  return html`<div class="notice error" role="alert">
    <p>${error.message}</p>
    ${items.length > 1 && items.map((item) => html`<p class="small"><code>${item.pointer ?? item.parameter}</code> ${item.message}</p>`)}
  </div>`;
}
