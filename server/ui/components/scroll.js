import { html } from "../lib/preact.js";

/** What may be wider than the screen; the keys move it too. */
export const Scroll = ({ label, children }) => html`<div class="scroll" tabindex="0" role="group" aria-label=${label}>${children}</div>`;
