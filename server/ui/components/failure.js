import { html } from "../lib/preact.js";

const BLAME = { user: "the spec", data: "the data", capacity: "the machine's room", platform: "the system" };

/** Why a job failed, whose move it is, and what to do. */
export function Failure({ error }) {
  if (!error) return null;
  return html`<div class="notice error" role="alert">
    <p><b>${error.code}</b> ${error.message}</p>
    ${error.hint && html`<p>${error.hint}</p>`}
    <p class="small">The reason is with ${BLAME[error.blame] ?? error.blame}${error.pointer
  ? html`, at <code>${error.pointer}</code>` : ""}. ${error.retryable ? "A retry may succeed." : ""}</p>
  </div>`;
}
