import { html } from "../lib/preact.js";
import { ago, bytes, count, duration } from "../lib/format.js";
import { Layers } from "./layers.js";
import { Panel } from "./panel.js";

const Fact = ({ name, value, note }) => html`<div><div class="name">${name}</div><div class="value">${value}</div>
  ${note && html`<div class="small soft">${note}</div>`}</div>`;

function Warning({ warning, onFix }) {
  return html`<div class="notice warning fault"><span><code>${warning.pointer.replace("/spec", "")}</code> ${warning.message}
    <span class="small"> (${warning.source})</span></span>
    ${warning.fix.length > 0 && html`<button class="small" onClick=${() => onFix(warning.fix)}>Mend it</button>`}</div>`;
}

/** What a spec would cost, and what may be wrong with it. */
export function PlanView({ plan, spec, onFix }) {
  const { totals, memory, duration: time, queue } = plan;
  const call = { path: "/v1/plans", method: "POST", body: { spec } };
  return html`
    ${plan.warnings.map((warning) => html`<${Warning} warning=${warning} onFix=${onFix} />`)}
    <${Panel} title="Plan" call=${call}>
      <div class="facts">
        <${Fact} name="duration" value="≈ ${duration(time.seconds)}" note="${duration(time.low_seconds)} – ${duration(time.high_seconds)}, ${time.device}" />
        <${Fact} name="starts" value=${queue.estimated_start_at ? ago(queue.estimated_start_at) : "no worker is there"} />
        <${Fact} name="memory" value=${bytes(memory.total)} note="weights ${bytes(totals.weight_bytes)}" />
        <${Fact} name="parameters" value=${count(totals.num_parameters)} note="${count(totals.macs)} MACs an image" />
        <${Fact} name="images" value=${totals.num_train.toLocaleString("en")} note="${totals.num_val.toLocaleString("en")} to validate" />
        <${Fact} name="steps" value=${totals.num_steps.toLocaleString("en")} note="${totals.steps_per_epoch.toLocaleString("en")} an epoch" />
      </div>
    </${Panel}>
    <${Panel} title="Network" flush call=${call}><${Layers} plan=${plan} /></${Panel}>`;
}
