import { html, useEffect, useState } from "../lib/preact.js";
import { getJson } from "../lib/api.js";
import { Dataset } from "../components/dataset.js";
import { Panel } from "../components/panel.js";
import { Problem } from "../components/problem.js";
import { UploadForm } from "../components/upload_form.js";

const PAUSE_MS = 1000;

export function DatasetsPage() {
  const [page, setPage] = useState(null);
  const [error, setError] = useState(null);
  const load = () => getJson("/v1/datasets?limit=50").then((found) => { setPage(found); setError(null); }).catch(setError);
  const validating = page?.data.some((dataset) => dataset.status === "validating");
  useEffect(() => { load(); }, []);
  useEffect(() => {
    if (!validating) return undefined;
    const timer = setInterval(load, PAUSE_MS);
    return () => clearInterval(timer);
  }, [validating]);
  return html`<h1>Datasets</h1>
    <${Problem} error=${error} />
    <${Panel} title="Add one of your own" call=${{ path: "/v1/datasets" }}><${UploadForm} onDone=${load} /></${Panel}>
    ${page?.data.map((dataset) => html`<${Dataset} key=${dataset.id} dataset=${dataset} onDeleted=${load} />`)}
    ${page?.data.length === 0 && html`<p class="soft">Nothing has been uploaded yet. <code>digits</code> is there without it, and <code>fashion_mnist</code> is fetched when a job first asks for it.</p>`}`;
}
