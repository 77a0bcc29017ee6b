import { html, useEffect, useRef } from "../lib/preact.js";
import { go } from "../lib/router.js";

const KEYS = { n: "/new", j: "/jobs", d: "/datasets", w: "/workers" };
const HELP = [
  ["j", "Jobs"], ["d", "Datasets"], ["w", "Workers"], ["n", "New job"], ["/", "Search"],
  ["+ − ← →", "Zoom and move in the chart that has the focus"], ["0, double click", "Show a chart's whole range again"],
  ["?", "This list"],
];

/** Single keys for what is done most; not while something is typed. */
export function Shortcuts() {
  const dialog = useRef();
  useEffect(() => {
    const pressed = (event) => {
      // A dialog that has just been closed keeps the focus until the next frame.
      const typing = event.target.closest("input, textarea, select, dialog[open]");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (KEYS[event.key]) go(KEYS[event.key]);
      else if (event.key === "/") document.querySelector("input[type=search]")?.focus();
      else if (event.key === "?") dialog.current.showModal();
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
  return html`<dialog ref=${dialog} aria-label="Keys"><div class="column">
    <h2>Keys</h2>
    <dl class="keys">${HELP.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <div class="buttons"><button onClick=${() => dialog.current.close()}>Close</button></div>
  </div></dialog>`;
}
