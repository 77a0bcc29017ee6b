import { html } from "../lib/preact.js";
import { ago, bytes, duration } from "../lib/format.js";
import { Panel } from "./panel.js";

const Fact = ({ name, value, limit = null }) => html`<div><div class="name">${name}</div><div class="value">${value}</div>
  <div class="small soft">${limit === null ? "no limit" : `of ${limit}`}</div></div>`;

/** The key that the page asks with, and what it takes of its limits. */
export function OwnKey({ own }) {
  const { usage, limits } = own;
  const seconds = limits.max_device_seconds;
  const size = limits.max_stored_bytes;
  const ends = own.expires_at ? `ends ${ago(own.expires_at)}` : "good until it is revoked";
  return html`<${Panel} title="Your key: ${own.name}" call=${{ path: "/v1/key" }}>
    <div class="stack">
      <p class="small soft">${`scope ${own.scope} · made ${ago(own.created_at)} · ${ends} · `}<code>${own.id}</code></p>
      <div class="facts">
        <${Fact} name="waiting jobs" value=${usage.queued} limit=${limits.max_queued} />
        <${Fact} name="running jobs" value=${usage.running} limit=${limits.max_running} />
        <${Fact} name="stored" value=${bytes(usage.stored_bytes)} limit=${size === null ? null : bytes(size)} />
        <${Fact} name="device time" value=${duration(usage.device_seconds)} limit=${seconds === null ? null : duration(seconds)} />
      </div>
    </div>
  </${Panel}>`;
}
