import { html, useState } from "../lib/preact.js";
import { postJson } from "../lib/api.js";
import { ago, bytes, clock, duration } from "../lib/format.js";
import { Chip } from "./chip.js";
import { Panel } from "./panel.js";
import { Scroll } from "./scroll.js";
import { say } from "./toast.js";

const LIMITS = {
  max_queued: (value) => `${value} waiting`,
  max_running: (value) => `${value} running`,
  max_stored_bytes: bytes,
  max_device_seconds: duration,
};

const statusOf = (key) => (key.active ? "active" : key.revoked_at ? "revoked" : "expired");

const limitsOf = ({ limits }) => Object.entries(limits).filter(([, value]) => value !== null)
  .map(([name, value]) => LIMITS[name](value)).join(", ") || "–";

function Row({ one, isOwn, onRevoke }) {
  const [sure, setSure] = useState(false);
  return html`<tr><td><b>${one.name}</b>${isOwn ? " (yours)" : ""}<br /><code class="small soft">${one.id}</code></td>
    <td>${one.scope}</td><td><${Chip} status=${statusOf(one)} /></td>
    <td class="soft" title=${clock(one.created_at)}>${ago(one.created_at)}</td>
    <td class="soft">${one.last_used_at ? ago(one.last_used_at) : "never"}</td>
    <td class="soft">${one.expires_at ? ago(one.expires_at) : "–"}</td><td class="small">${limitsOf(one)}</td>
    <td class="number">${one.active && (sure
    ? html`<button class="small danger" onClick=${onRevoke}>Revoke for good</button> <button class="small" onClick=${() => setSure(false)}>Keep</button>`
    : html`<button class="small danger" onClick=${() => setSure(true)} aria-label="Revoke ${one.name}">Revoke</button>`)}</td></tr>`;
}

export function KeysTable({ keys, own, onChange }) {
  const revoke = (id) => postJson(`/v1/keys/${id}/revoke`).then(onChange).catch((error) => say(error.message));
  return html`<${Panel} title="Keys" flush call=${{ path: "/v1/keys" }}><${Scroll} label="Keys"><table>
    <thead><tr><th scope="col">Key</th><th scope="col">Scope</th><th scope="col">Status</th><th scope="col">Made</th><th scope="col">Used</th>
      <th scope="col">Ends</th><th scope="col">Limits</th><th scope="col"><span class="hidden">Revoke</span></th></tr></thead>
    <tbody>${keys.map((one) => html`<${Row} key=${one.id} one=${one} isOwn=${one.id === own.id} onRevoke=${() => revoke(one.id)} />`)}</tbody>
  </table></${Scroll}></${Panel}>`;
}
