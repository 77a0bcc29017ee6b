import { html } from "../lib/preact.js";
import { bytes, count, metric, metricName, number } from "../lib/format.js";
import { last } from "../lib/series.js";

function Card({ name, value, note, hero = false }) {
  return html`<div class="card ${hero ? "hero" : ""}"><div class="name">${name}</div>
    <div class="value">${value}</div><div class="note">${note}</div></div>`;
}

/** The numbers of a job that people ask for first. */
export function Cards({ job, series, plan }) {
  const { best, result, latest_metrics: newest } = job;
  const speed = last(series, "images_per_second");
  const lastKey = ["val_accuracy", "train_accuracy", "val_loss", "train_loss"].find((key) => Number.isFinite(newest[key]));
  const cards = [];
  if (result) {
    const note = `${result.weights} weights, epoch ${result.epoch}`;
    cards.push(html`<${Card} hero name="test accuracy" value=${metric("accuracy", result.test_accuracy)} note=${note} />`);
  }
  if (best) {
    cards.push(html`<${Card} hero=${!result} name="best ${metricName(best.metric)}" value=${metric(best.metric, best.value)}
      note="at epoch ${best.epoch}, step ${best.step}" />`);
  }
  if (lastKey) {
    cards.push(html`<${Card} name="last ${metricName(lastKey)}" value=${metric(lastKey, newest[lastKey])}
      note=${Number.isFinite(newest.train_loss) ? `train loss ${number(newest.train_loss)}` : ""} />`);
  }
  if (speed) cards.push(html`<${Card} name="images per second" value=${count(Math.round(speed))} note="last epoch" />`);
  if (plan) {
    const { totals, memory } = plan;
    cards.push(
      html`<${Card} name="parameters" value=${count(totals.num_parameters)} note="${count(totals.macs)} MACs an image" />`,
      html`<${Card} name="memory" value=${bytes(memory.total)} note="predicted peak" />`,
    );
  }
  return html`<div class="cards">${cards}</div>`;
}
