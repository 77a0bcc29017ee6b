import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { clock } from "../lib/format.js";
import { useEvents, whenLive } from "../lib/live.js";
import { Panel } from "./panel.js";

const TYPES = ["job.status", "job.intent", "job.changed", "job.warning"];

function words({ type, data, attempt }) {
  if (type === "job.status") {
    const reason = data.reason ? ` (${data.reason.replaceAll("_", " ")})` : "";
    return `${data.from ? `${data.from} → ` : ""}${data.to}${reason}${data.worker ? ` by ${data.worker}, attempt ${attempt}` : ""}`;
  }
  if (type === "job.intent") return `${data.to ?? "nothing more"} asked for`;
  if (type === "job.warning") return data.message ?? JSON.stringify(data);
  return `changed: ${Object.entries(data).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")}`;
}

/** What happened to the job, when, and why. */
export function Timeline({ job }) {
  const [events, setEvents] = useState(new Map());
  const path = `${job.links.events}?types=${TYPES.join(",")}`;
  const add = (found) => setEvents((known) => new Map([...known, ...found.map((event) => [event.id, event])]));
  useEffect(() => {
    whenLive().then(() => getJson(path)).then((page) => add(page.data)).catch(() => {});
  }, [job.id]);
  useEvents((event) => event.job_id === job.id && TYPES.includes(event.type) && add([event]));
  const sorted = [...events.values()].sort((a, b) => a.id - b.id);
  return html`<${Panel} title="Timeline" call=${{ path }}>
    <ol class="timeline">${sorted.map((event) => html`<li key=${event.id}>
      <span class="soft">${clock(event.at)}</span><span class="wrap">${words(event)}</span></li>`)}</ol>
  </${Panel}>`;
}
