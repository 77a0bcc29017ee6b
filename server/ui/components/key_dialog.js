import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { getKey, setKey } from "../lib/api.js";

/** Asks for an API key as soon as the server wants one. */
export function KeyDialog() {
  const dialog = useRef();
  const [text, setText] = useState("");
  const [refused, setRefused] = useState(false);
  useEffect(() => {
    const ask = () => {
      setRefused(getKey() !== null);
      if (!dialog.current.open) dialog.current.showModal();
    };
    window.addEventListener("unauthenticated", ask);
    return () => window.removeEventListener("unauthenticated", ask);
  }, []);
  const give = (event) => {
    event.preventDefault();
    setKey(text.trim());
    dialog.current.close();
    location.reload();
  };
  return html`<dialog ref=${dialog} aria-label="API key">
    <form onSubmit=${give}>
      <h2>This server asks for an API key</h2>
      ${refused && html`<p class="bad">The server does not take the key that was given.</p>`}
      <label>Key<input type="password" required value=${text} autocomplete="off" placeholder="epk_…"
        onInput=${(event) => setText(event.target.value)} /></label>
      <p class="small soft">It is kept until this tab is closed. Make one with <code>epochd keys create NAME</code>.</p>
      <div class="buttons"><button class="primary">Continue</button></div>
    </form>
  </dialog>`;
}
