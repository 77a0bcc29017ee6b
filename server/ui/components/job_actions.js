import { html, useState } from "../lib/preact.js";
import { postJson, request } from "../lib/api.js";
import { go } from "../lib/router.js";
import { DeleteButton } from "./delete_button.js";
import { Icon } from "./icon.js";
import { say } from "./toast.js";

const ASKED = [
  ["pause", "Pause", "pause"], ["resume", "Resume", "play"], ["retry", "Retry", "retry"], ["cancel", "Cancel", "stop"],
];

/** What may be asked of a job now, by its `allowed_actions`. */
export function JobActions({ job, onChange }) {
  const [busy, setBusy] = useState(false);
  const attempt = async (work) => {
    setBusy(true);
    try {
      await work();
    } catch (error) {
      say(error.message);
    } finally {
      setBusy(false);
    }
  };
  const ask = (action) => attempt(async () => onChange(await postJson(`/v1/jobs/${job.id}/${action}`)));
  const remove = () => attempt(async () => {
    await request(`/v1/jobs/${job.id}`, { method: "DELETE" });
    go("/jobs");
  });
  return html`<div class="spread" role="group" aria-label="Actions">
    ${ASKED.filter(([action]) => job.allowed_actions.includes(action)).map(([action, name, icon]) => html`
      <button key=${action} disabled=${busy || job.intent === action} class=${action === "cancel" ? "danger" : ""}
        onClick=${() => ask(action)}><${Icon} name=${icon} />${name}</button>`)}
    <a class="button" href="#/new?from=${job.id}"><${Icon} name="copy" />Clone</a>
    ${job.allowed_actions.includes("delete") && html`<${DeleteButton} onDelete=${remove} disabled=${busy} />`}
  </div>`;
}
