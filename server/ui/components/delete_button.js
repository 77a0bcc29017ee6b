import { html, useState } from "../lib/preact.js";
import { Icon } from "./icon.js";

/** Deletes when it has been asked twice; `what` names it for those who do not see where the button stands. */
export function DeleteButton({ onDelete, what = "", disabled = false }) {
  const [sure, setSure] = useState(false);
  return sure
    ? html`<button class="danger" disabled=${disabled} onClick=${onDelete}>Delete for good</button>
      <button onClick=${() => setSure(false)}>Keep</button>`
    : html`<button class="danger" onClick=${() => setSure(true)} aria-label=${`Delete ${what}`.trim()}><${Icon} name="trash" />Delete</button>`;
}
