import { html } from "../lib/preact.js";

/** A status, with what comes next where a user has asked for something. */
export function Chip({ status, phase = null, intent = null }) {
  const detail = intent ? `${intent} asked for` : status === "running" && phase ? phase.replaceAll("_", " ") : null;
  return html`<span class="chip ${status}">${detail ? `${status} · ${detail}` : status}</span>`;
}
