import { html } from "../lib/preact.js";
import { curlOf } from "../lib/api.js";
import { copy } from "./copy.js";
import { Icon } from "./icon.js";

/**
 * A titled part of a page. `call` is the request behind it, {path, method, body}, or several of them, offered as a
 * command.
 */
export function Panel({ title, call, actions, flush = false, children }) {
  const command = () => [call].flat().map((one) => curlOf(one.path, one)).join("\n");
  return html`<section class="panel" aria-label=${title}>
    <header>
      <h2>${title}</h2>
      <div class="push">
        ${actions}
        ${call && html`<button class="plain small" title="Copy the curl command that asks the same"
          onClick=${() => copy(command(), "Copied the command.")}><${Icon} name="terminal" />copy curl</button>`}
      </div>
    </header>
    <div class="body ${flush ? "flush" : ""}">${children}</div>
  </section>`;
}
