import { html } from "../lib/preact.js";

/** What is wrong with the spec, each fault with its place and, where there is one, its repair. */
export function Faults({ error, onFix }) {
  const items = error.problem?.errors?.length ? error.problem.errors : [{ message: error.message }];
  return html`<div class="notice error" role="alert">${items.map((item) => html`<div class="fault">
    <span class="wrap">${item.pointer !== undefined && item.pointer !== null && html`<code>${item.pointer.replace("/spec", "") || "/"}</code> `}${item.message}</span>
    ${item.fix && html`<button class="small" onClick=${() => onFix(item.fix)}>Mend it</button>`}</div>`)}</div>`;
}
