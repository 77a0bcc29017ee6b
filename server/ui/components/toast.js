import { html, useEffect, useState } from "../lib/preact.js";

const SECONDS = 5;

/** Tells the user something for a few seconds. */
export const say = (text) => window.dispatchEvent(new CustomEvent("say", { detail: text }));

export function Toast() {
  const [text, setText] = useState("");
  useEffect(() => {
    let timer;
    const show = (event) => {
      clearTimeout(timer);
      setText(event.detail);
      timer = setTimeout(() => setText(""), 1000 * SECONDS);
    };
    window.addEventListener("say", show);
    return () => window.removeEventListener("say", show);
  }, []);
  return html`<div class="toast" role="status" aria-live="polite">${text}</div>`;
}
