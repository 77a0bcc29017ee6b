import { html, render } from "./lib/preact.js";
import { App } from "./components/app.js";
import { applyTheme } from "./lib/theme.js";

applyTheme();
render(html`<${App} />`, document.body);
