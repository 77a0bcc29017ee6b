import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { getJson, postJson } from "../lib/api.js";
import { patched } from "../lib/patch.js";
import { go } from "../lib/router.js";
import { format } from "../lib/spec_text.js";
import { Faults } from "../components/faults.js";
import { Panel } from "../components/panel.js";
import { PlanView } from "../components/plan_view.js";

const PAUSE_MS = 350;

function read(text) {
  try {
    return { spec: JSON.parse(text) };
  } catch (error) {
    return { error };
  }
}

/** The plan of the text, or why there is none: {plan, spec, error}, a moment after the last change. */
function usePlanned(text) {
  const [state, setState] = useState({});
  const asked = useRef(0);
  useEffect(() => {
    const timer = setTimeout(async () => {
      if (!text.trim()) return setState({});
      const number = (asked.current += 1);
      const { spec, error } = read(text);
      const result = error ? { error } : await postJson("/v1/plans", { spec }).then((plan) => ({ plan, spec }), (reason) => ({ error: reason, spec }));
      return number === asked.current && setState({ ...result, text });
    }, PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return state;
}

const MIN_STEPS = 4; // an epoch, of a small dataset

/** The spec with another dataset, with as many outputs as that has classes and batches that are small enough for it. */
function onDataset(spec, { id, content }) {
  const { layers } = spec.model;
  const model = layers ? { ...spec.model, layers: [...layers.slice(0, -1), { ...layers.at(-1), out_features: content.labels.length }] } : spec.model;
  const batch_size = Math.max(1, Math.min(spec.training.batch_size, Math.floor(content.num_train / MIN_STEPS)));
  return { ...spec, dataset: { type: "registered", id }, model, training: { ...spec.training, batch_size } };
}

/** The spec as text, a change of it, and one to what `ask` finds, unless something else has changed it by then. */
function useText() {
  const [text, setText] = useState("");
  const changes = useRef(0);
  const change = (next) => {
    changes.current += 1;
    setText(next);
  };
  const changeLater = async (ask) => {
    const number = (changes.current += 1);
    const next = await ask();
    if (number === changes.current) setText(next);
  };
  return [text, change, changeLater];
}

/** The examples, and the spec to begin with: another job's, the example for a `dataset` of the user's, or the first one. */
function useStart(from, dataset, changeLater, setName) {
  const [examples, setExamples] = useState([]);
  const example = async (file) => {
    const spec = await getJson(`examples/${file}`);
    if (!dataset) return format(spec);
    const own = await getJson(`/v1/datasets/${dataset}`);
    setName(own.name);
    return format(onDataset(spec, own));
  };
  const cloned = async () => {
    const job = await getJson(`/v1/jobs/${from}`);
    setName(job.name ?? "");
    return format(job.spec);
  };
  useEffect(() => {
    const index = getJson("examples/index.json");
    const first = async () => {
      const found = await index;
      return example((dataset && found.find((one) => one.own) || found[0]).file);
    };
    index.then(setExamples);
    changeLater(() => from ? cloned().catch(first) : first());
  }, [from]);
  return [examples, (file) => changeLater(() => example(file))];
}

const Editor = ({ text, setText }) => html`<textarea aria-label="Spec" spellcheck=${false} autocomplete="off" value=${text}
  onInput=${(event) => setText(event.target.value)} />`;

export function SubmitPage({ params }) {
  const [text, setText, changeLater] = useText();
  const [name, setName] = useState("");
  const [tags, setTags] = useState("");
  const [priority, setPriority] = useState("0");
  const [failure, setFailure] = useState(null);
  const [busy, setBusy] = useState(false);
  const planned = usePlanned(text);
  const [examples, choose] = useStart(params.get("from"), params.get("dataset"), changeLater, setName);
  const current = planned.text === text && !planned.error && planned.plan;
  const body = () => ({
    spec: planned.spec, ...(name && { name }), priority: Number(priority), tags: tags.split(/[\s,]+/).filter(Boolean),
  });
  const call = planned.spec && { path: "/v1/jobs", method: "POST", body: body() };
  const fix = (operations) => setText(format(patched({ spec: planned.spec }, operations).spec));
  const submit = async () => {
    setBusy(true);
    try {
      go(`/jobs/${(await postJson("/v1/jobs", body())).id}`);
    } catch (error) {
      setFailure(error);
      setBusy(false);
    }
  };
  return html`
    <div class="spread"><h1>${params.get("from") ? "Clone a job" : "New job"}</h1>
      <div class="examples push" role="group" aria-label="Examples"><span class="small soft">Start from</span>
        ${examples.map((one) => html`<button class="small" title=${one.about} onClick=${() => choose(one.file)}>${one.title}</button>`)}</div></div>
    <div class="submit">
      <${Panel} title="Spec" flush call=${call}
        actions=${html`<button class="plain small" onClick=${() => !read(text).error && setText(format(read(text).spec))}>tidy</button>`}>
        <${Editor} text=${text} setText=${setText} />
      </${Panel}>
      <div class="stack">
        <${Panel} title="Submit" call=${call}>
          <div class="stack">
            <div class="fields">
              <label>Name<input value=${name} maxlength="200" placeholder="for people" onInput=${(event) => setName(event.target.value)} /></label>
              <label>Tags<input value=${tags} placeholder="sweep, baseline" onInput=${(event) => setTags(event.target.value)} /></label>
              <label>Priority<input type="number" min="-1000" max="1000" value=${priority} onInput=${(event) => setPriority(event.target.value)} /></label>
            </div>
            <div class="spread"><button class="primary" disabled=${!current || busy} onClick=${submit}>Train it</button>
              <span class="small soft" role="status">${current ? "The spec is valid." : planned.error ? "The spec is not valid yet." : "Checking…"}</span></div>
          </div>
        </${Panel}>
        ${failure && html`<${Faults} error=${failure} onFix=${fix} />`}
        ${planned.error && html`<${Faults} error=${planned.error} onFix=${fix} />`}
        ${planned.plan && !planned.error && html`<${PlanView} plan=${planned.plan} spec=${planned.spec} onFix=${fix} />`}
      </div>
    </div>`;
}
