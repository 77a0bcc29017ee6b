import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/preact.js";
import { send } from "../lib/api.js";
import { useEvents } from "../lib/live.js";
import { Panel } from "./panel.js";

const TAIL_BYTES = 300_000;
const PAUSE_MS = 700;

/** The end of the log, and what is added to it. */
function useLog(path) {
  const [text, setText] = useState("");
  const state = useRef({ next: null, busy: false, timer: null });

  async function read() {
    const { current } = state;
    current.timer = null;
    if (current.busy) return;
    current.busy = true;
    try {
      const size = Number((await send(path, { method: "HEAD" })).headers.get("Content-Length") ?? 0);
      const start = current.next ?? Math.max(0, size - TAIL_BYTES);
      if (size > start) {
        const response = await send(path, { headers: { Range: `bytes=${start}-` } });
        const bytes = await response.arrayBuffer();
        current.next = start + bytes.byteLength;
        setText((known) => known + new TextDecoder().decode(bytes));
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the network's errors: the next event asks again
    } finally {
      current.busy = false;
    }
  }
  useEffect(() => {
    read();
    return () => clearTimeout(state.current.timer);
  }, [path]);
  return [text, () => { state.current.timer ??= setTimeout(read, PAUSE_MS); }];
}

function Line({ text, q }) {
  const at = q ? text.toLowerCase().indexOf(q.toLowerCase()) : -1;
  if (at < 0) return `${text}\n`;
  return html`<span>${text.slice(0, at)}<mark>${text.slice(at, at + q.length)}</mark>${text.slice(at + q.length)}${"\n"}</span>`;
}

export function Log({ job }) {
  const [text, later] = useLog(job.links.logs);
  const [q, setQ] = useState("");
  const place = useRef();
  const atEnd = useRef(true);
  useEvents((event) => event.job_id === job.id && event.type !== "job.progress" && later());
  const lines = text.split("\n").filter((line) => line && (!q || line.toLowerCase().includes(q.toLowerCase())));
  useLayoutEffect(() => {
    if (atEnd.current) place.current.scrollTop = place.current.scrollHeight;
  }, [text, q]);
  const scrolled = ({ target }) => { atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 20; };
  const search = html`<input type="search" placeholder="Search the log" aria-label="Search the log" value=${q}
    onInput=${(event) => setQ(event.target.value)} />`;
  return html`<${Panel} title="Log" flush call=${{ path: `${job.links.logs}?tail=200` }} actions=${search}>
    <pre class="log" ref=${place} onScroll=${scrolled} tabindex="0" aria-label="Log">${lines.length
    ? lines.map((line) => html`<${Line} text=${line} q=${q} />`) : html`<span class="soft">${q ? "no line has that" : "nothing has been printed yet"}</span>`}</pre>
  </${Panel}>`;
}
