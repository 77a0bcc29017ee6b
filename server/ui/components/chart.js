import { html, useEffect, useMemo, useRef, useState } from "../lib/preact.js";
import uPlot from "../vendor/uplot-1.6.32/uPlot.esm.js";
import { metric, number } from "../lib/format.js";
import { columns, smooth } from "../lib/series.js";
import { onTheme } from "../lib/theme.js";
import { zoomed } from "../lib/zoom.js";

const HEIGHT = 230;
const NUM_COLOURS = 8;
const FONT = "12px system-ui, sans-serif";

const colourOf = (place, name) => getComputedStyle(place.querySelector(`.${name}`)).color;

function faded(colour) {
  return colour.replace("rgb(", "rgba(").replace(")", ", 0.28)");
}

/** Steps between the marks of an axis that counts: there is no epoch 1.5. */
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

function axis(place, values, size, more) {
  const colour = colourOf(place, "axis-color");
  const line = colourOf(place, "grid-color");
  return { stroke: colour, font: FONT, size, values, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, ...more };
}

/** What uPlot is told; `latest` holds the props of the newest rendering, which its functions read. */
function options(place, latest) {
  const { lines, log, smoothing, format } = latest.current;
  const colours = lines.map((_, index) => colourOf(place, `s${index % NUM_COLOURS}`));
  const dots = (stroke) => ({ show: (u) => u.data[0].length < 60, size: 5, fill: stroke });
  const line = (stroke, width, points) => ({ stroke, width, points, spanGaps: true });
  const drawn = colours.map((stroke) => line(smoothing ? faded(stroke) : stroke, smoothing ? 1 : 2, dots(stroke)));
  if (smoothing) {
    drawn.forEach((raw) => { raw.points = { show: false }; });
    drawn.push(...colours.map((stroke) => line(stroke, 2, dots(stroke))));
  }
  return {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: {
      sync: { key: "charts" },
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => latest.current.onZoom(null) },
    },
    scales: {
      x: { time: false, range: (u, low, high) => latest.current.zoom ?? (low === high ? [low - 0.5, high + 0.5] : [low, high]) },
      y: { distr: log ? 3 : 1 },
    },
    axes: [
      axis(place, (u, ticks) => ticks.map((tick) => number(tick)), 34, latest.current.x === "time" ? {} : { incrs: WHOLE }),
      axis(place, (u, ticks) => ticks.map((tick) => (tick === null ? "" : format ? format(tick) : number(tick))), 62),
    ],
    series: [{}, ...drawn],
    hooks: {
      setSelect: [(u) => {
        if (u.select.width < 4) return;
        const [low, high] = [u.select.left, u.select.left + u.select.width].map((left) => u.posToVal(left, "x"));
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        latest.current.onZoom([low, high]);
      }],
      setCursor: [(u) => latest.current.setIndex(u.cursor.idx ?? null)],
      draw: [(u) => {
        Object.assign(place.dataset, { points: u.data[0].length, last: u.data[0].at(-1), xMin: u.scales.x.min, xMax: u.scales.x.max });
      }],
    },
  };
}

function Legend({ lines, data, index }) {
  return html`<div class="legend">${lines.map((line, at) => {
    const values = data[at + 1];
    const value = index === null ? values.findLast((one) => one !== null) : values[index];
    return html`<span class="entry"><i class="s${at % NUM_COLOURS}" />${line.label}<b>${metric(line.key, value ?? null)}</b></span>`;
  })}</div>`;
}

/**
 * Lines over one axis: `lines` are {key, label, points, start}. `zoom` is the range of x that is shown, null for all;
 * dragging and the keys +, -, 0 and the arrows ask for another by `onZoom`. New points and other lines leave it as it is.
 */
export function Chart({ title, lines, version, x, log, smoothing, zoom, onZoom, format }) {
  const place = useRef();
  const plot = useRef(null);
  const [index, setIndex] = useState(null);
  const [themed, setThemed] = useState(0);
  const keys = lines.map((line) => line.label).join("\n");
  const data = useMemo(() => columns(lines, x, log), [keys, version, x, log]);
  const shown = smoothing ? [...data, ...data.slice(1).map((values) => smooth(values, smoothing))] : data;
  const latest = useRef();
  latest.current = { lines, x, log, smoothing, zoom, onZoom, setIndex, format };

  useEffect(() => onTheme(() => setThemed((count) => count + 1)), []);
  useEffect(() => {
    plot.current = new uPlot(options(place.current, latest), shown, place.current);
    const observer = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      plot.current.destroy();
    };
  }, [keys, x, log, smoothing > 0, themed]);
  useEffect(() => { plot.current.setData(shown); }, [data, smoothing, zoom?.[0], zoom?.[1]]);

  const pressed = (event) => {
    const { min, max } = plot.current.scales.x;
    const range = data[0].length > 1 ? zoomed(event.key, [min, max], [data[0][0], data[0].at(-1)]) : undefined;
    if (range === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onZoom(range);
  };
  return html`<div>
    <${Legend} lines=${lines} data=${data} index=${index !== null && index < data[0].length ? index : null} />
    <div class="chart" ref=${place} role="img" tabindex="0" onKeyDown=${pressed} data-chart=${title}
      aria-label="${title}: ${lines.map((line) => line.label).join(", ")} over ${x}, ${data[0].length} points">
      ${lines.map((_, at) => html`<span class="s${at % NUM_COLOURS}" />`)}<span class="axis-color" /><span class="grid-color" />
    </div>
  </div>`;
}
