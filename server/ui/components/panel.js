import { html } from "../lib/preact.js";
import { curlOf } from "../lib/api.js";
import { Icon } from "./icon.js";
import { say } from "./toast.js";

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied the command.");
  } catch {
    say(text); // without a secure connection browsers keep their clipboard
  }
}

/** A titled part of a page. `call` is the request behind it: {path, method, body}, offered as a command. */
export function Panel({ title, call, actions, flush = false, children }) {
  return html`<section class="panel" aria-label=${title}>
    <header>
      <h2>${title}</h2>
      <div class="push">
        ${actions}
        ${call && html`<button class="plain small" title="Copy the curl command that asks the same"
          onClick=${() => copy(curlOf(call.path, call))}><${Icon} name="terminal" />copy curl</button>`}
      </div>
    </header>
    <div class="body ${flush ? "flush" : ""}">${children}</div>
  </section>`;
}
