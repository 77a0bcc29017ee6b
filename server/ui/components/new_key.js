import { html, useState } from "../lib/preact.js";
import { postJson } from "../lib/api.js";
import { copy } from "./copy.js";
import { Icon } from "./icon.js";
import { Panel } from "./panel.js";
import { Problem } from "./problem.js";

const EMPTY = { name: "", scope: "submit", days: "", max_queued: "", max_running: "", gigabytes: "", hours: "" };
const NUMBERS = [
  ["days", "Good for days", "until revoked"], ["max_queued", "Waiting jobs", "no limit"], ["max_running", "Running jobs", "no limit"],
  ["gigabytes", "Stored GB", "no limit"], ["hours", "Device hours", "no limit"],
];

const times = (text, factor) => (text === "" ? null : Math.round(Number(text) * factor));

const bodyOf = ({ name, scope, days, max_queued, max_running, gigabytes, hours }) => ({
  name,
  scope,
  expires_in_seconds: times(days, 86_400),
  limits: {
    max_queued: times(max_queued, 1),
    max_running: times(max_running, 1),
    max_stored_bytes: times(gigabytes, 1e9),
    max_device_seconds: times(hours, 3600),
  },
});

/** The secret of a key that has just been made. */
function Secret({ made, onHide }) {
  return html`<div class="notice good" role="status">
    <p>The secret of <b>${made.name}</b>, shown this once; only its SHA-256 is kept:</p>
    <p class="spread"><code class="wrap">${made.secret}</code>
      <button class="small" onClick=${() => copy(made.secret, "Copied the secret.")}><${Icon} name="copy" />Copy</button>
      <button class="small" onClick=${onHide}>I have it</button></p>
  </div>`;
}

export function NewKey({ onDone }) {
  const [fields, setFields] = useState(EMPTY);
  const [made, setMade] = useState(null);
  const [error, setError] = useState(null);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const create = async (event) => {
    event.preventDefault();
    setError(null);
    try {
      setMade(await postJson("/v1/keys", bodyOf(fields)));
      setFields(EMPTY);
      onDone();
    } catch (reason) {
      setError(reason);
    }
  };
  return html`<${Panel} title="New key" call=${{ path: "/v1/keys", method: "POST", body: bodyOf(fields) }}>
    <form class="stack" onSubmit=${create}>
      <div class="fields">
        <label>Name<input required maxlength="200" value=${fields.name} placeholder="who gets it" onInput=${set("name")} /></label>
        <label>Scope<select value=${fields.scope} onChange=${set("scope")}>
          ${["read", "submit", "admin"].map((scope) => html`<option value=${scope}>${scope}</option>`)}</select></label>
        ${NUMBERS.map(([name, label, without]) => html`<label>${label}<input type="number" min="0" step="any" value=${fields[name]}
          placeholder=${without} onInput=${set(name)} /></label>`)}
      </div>
      <p class="small soft">A key of scope read sees its own jobs, submit also makes and changes them, admin sees everybody's and
        makes keys.</p>
      <div><button class="primary">Make it</button></div>
      <${Problem} error=${error} />
      ${made && html`<${Secret} made=${made} onHide=${() => setMade(null)} />`}
    </form>
  </${Panel}>`;
}
