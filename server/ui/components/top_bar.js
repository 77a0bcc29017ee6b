import { html, useState } from "../lib/preact.js";
import { getKey } from "../lib/api.js";
import { useConnected } from "../lib/live.js";
import { switchTheme, theme } from "../lib/theme.js";
import { Icon } from "./icon.js";

const LINKS = [["/jobs", "Jobs"], ["/datasets", "Datasets"], ["/workers", "Workers"]];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function TopBar({ path }) {
  const connected = useConnected();
  const [current, setCurrent] = useState(theme);
  const change = () => {
    switchTheme();
    setCurrent(theme());
  };
  return html`<header class="top">
    <a class="brand" href="#/jobs"><img src="icon.svg" alt="" />epochd</a>
    <nav aria-label="Pages">
      ${[...LINKS, ...(getKey() ? [["/keys", "Keys"]] : [])].map(([to, name]) => html`<a href="#${to}" aria-current=${path.startsWith(to) ? "page" : null}>${name}</a>`)}
      <a href="/docs">API</a>
    </nav>
    <span class="live push ${connected ? "on" : ""}" role="status"><span class="words">${connected ? "live" : "connecting…"}</span></span>
    <button class="plain" onClick=${change} title="Colours: ${current}" aria-label="Colours: ${current}">
      <${Icon} name=${ICONS[current]} /></button>
    <a class="button primary" href="#/new"><${Icon} name="plus" />New job</a>
  </header>`;
}
