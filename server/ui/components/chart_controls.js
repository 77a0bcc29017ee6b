import { html } from "../lib/preact.js";
import { setParams } from "../lib/router.js";

/** How charts are drawn, as the URL says: {x, log, smoothing, zoom}. */
export function chartState(params) {
  const zoom = params.get("zoom")?.split("~").map(Number);
  return {
    x: ["step", "time"].includes(params.get("x")) ? params.get("x") : "epoch",
    log: params.get("log") === "1",
    smoothing: Math.min(0.99, Number(params.get("smooth") ?? 0) || 0),
    zoom: zoom?.length === 2 && zoom.every(Number.isFinite) ? zoom : null,
    onZoom: (range) => setParams({ zoom: range && range.map((value) => Number(value.toPrecision(8))).join("~") }),
  };
}

export function ChartControls({ x, log, smoothing, zoom }) {
  return html`<div class="controls">
    <div class="segmented" role="group" aria-label="Horizontal axis">
      ${["epoch", "step", "time"].map((name) => html`<button aria-pressed=${x === name}
        onClick=${() => setParams({ x: name === "epoch" ? null : name, zoom: null })}>${name}</button>`)}
    </div>
    <label class="row"><input type="checkbox" checked=${log} onChange=${() => setParams({ log: log ? null : "1" })} />log scale</label>
    <label class="row">smoothing<input type="range" min="0" max="0.95" step="0.05" value=${smoothing}
      onInput=${(event) => setParams({ smooth: event.target.value === "0" ? null : event.target.value })} />
      <span>${smoothing ? smoothing.toFixed(2) : "off"}</span></label>
    ${zoom ? html`<button class="small" onClick=${() => setParams({ zoom: null })}>Show all</button>`
    : html`<span class="small soft">drag to zoom, or press + and − on a chart</span>`}
  </div>`;
}
