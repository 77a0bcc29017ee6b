import { html, useEffect, useState } from "../lib/preact.js";
import { getJson, getKey } from "../lib/api.js";
import { KeysTable } from "../components/keys_table.js";
import { NewKey } from "../components/new_key.js";
import { OwnKey } from "../components/own_key.js";
import { Problem } from "../components/problem.js";

const PAGE = 100;

/** The keys, newest first, page by page: {keys, more, load}. */
function useKeys(wanted) {
  const [state, setState] = useState({ keys: [], cursor: null });
  const [error, setError] = useState(null);
  const load = (behind = null) => getJson(`/v1/keys?limit=${PAGE}${behind ? `&cursor=${behind}` : ""}`).then((page) => {
    setState((known) => ({ keys: behind ? [...known.keys, ...page.data] : page.data, cursor: page.next_cursor }));
  }).catch(setError);
  useEffect(() => { if (wanted) load(); }, [wanted]);
  return { ...state, load, error };
}

/** The own key, and for administrators all of them. */
export function KeysPage() {
  const [own, setOwn] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => { if (getKey()) getJson("/v1/key").then(setOwn).catch(setError); }, []);
  const isAdmin = own?.scope === "admin";
  const { keys, cursor, load, error: refused } = useKeys(isAdmin);
  if (!getKey()) {
    return html`<h1>API keys</h1><p class="soft">No key has been asked for here: a server that was started with
      <code>--dev</code> or <code>EPOCHD_AUTH=off</code> needs none.</p>`;
  }
  return html`<h1>API keys</h1>
    <${Problem} error=${error ?? refused} />
    ${own && html`<${OwnKey} own=${own} />`}
    ${isAdmin && html`<${NewKey} onDone=${() => load()} />
      <${KeysTable} keys=${keys} own=${own} onChange=${() => load()} />
      ${cursor && html`<button onClick=${() => load(cursor)}>Show more</button>`}`}
    ${own && !isAdmin && html`<p class="soft">Other keys are seen, made and revoked with a key of scope admin.</p>`}`;
}
