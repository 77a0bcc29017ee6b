import { html, useEffect } from "../lib/preact.js";
import { startLive } from "../lib/live.js";
import { useRoute } from "../lib/router.js";
import { ComparePage } from "../pages/compare.js";
import { DatasetsPage } from "../pages/datasets.js";
import { JobPage } from "../pages/job.js";
import { JobsPage } from "../pages/jobs.js";
import { KeysPage } from "../pages/keys.js";
import { SubmitPage } from "../pages/submit.js";
import { WorkersPage } from "../pages/workers.js";
import { KeyDialog } from "./key_dialog.js";
import { Shortcuts } from "./shortcuts.js";
import { Toast } from "./toast.js";
import { TopBar } from "./top_bar.js";

const PAGES = {
  jobs: JobsPage, compare: ComparePage, new: SubmitPage, datasets: DatasetsPage, workers: WorkersPage, keys: KeysPage,
};

function page({ path, params }) {
  const [, section, id] = path.split("/");
  if (section === "jobs" && id) return html`<${JobPage} key=${id} id=${id} params=${params} />`;
  const Page = PAGES[section] ?? JobsPage;
  return html`<${Page} key=${section} params=${params} />`;
}

export function App() {
  const route = useRoute();
  useEffect(() => { startLive(); }, []);
  return html`<${TopBar} path=${route.path} />
    <main>${page(route)}</main>
    <${Shortcuts} /><${KeyDialog} /><${Toast} />`;
}
