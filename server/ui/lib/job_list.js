// The jobs that the page knows, kept up to date by their events.
import { useEffect, useMemo, useRef, useState } from "./preact.js";
import { getJson } from "./api.js";
import { changesMore, refetcher, withEvent } from "./jobs.js";
import { useEvents, whenLive } from "./live.js";

const FIRST_PAGE = 50;
const PAGE = 200;
const MAX_JOBS = 2000;

/**
 * {jobs: Map by id, complete, older, loadOlder, error}: the first page at once, then the newest MAX_JOBS. Behind
 * them `older` is true, and `loadOlder` brings as many again.
 */
export function useJobs() {
  const [jobs, setJobs] = useState(() => new Map());
  const [complete, setComplete] = useState(false);
  const [cursor, setCursor] = useState(null);
  const [error, setError] = useState(null);
  const left = useRef(new AbortController());

  const update = (change) => setJobs((known) => {
    const next = new Map(known);
    change(next);
    return next;
  });
  const refetch = useMemo(() => refetcher((id, job) => update((next) => (job ? next.set(id, job) : next.delete(id)))), []);
  const ask = (limit, behind) => getJson(`/v1/jobs?limit=${limit}${behind ? `&cursor=${behind}` : ""}`, { signal: left.current.signal });
  const failed = (reason) => { if (reason.name !== "AbortError") setError(reason); };

  async function load(start) {
    setComplete(false);
    let behind = start;
    for (let num = 0; num < MAX_JOBS;) {
      const page = await ask(PAGE, behind);
      update((next) => page.data.forEach((job) => next.set(job.id, job)));
      num += page.data.length;
      behind = page.next_cursor;
      if (!page.has_more) break;
    }
    setCursor(behind);
    setComplete(true);
  }

  useEffect(() => {
    ask(FIRST_PAGE).then((page) => { // to be seen at once; all that changes meanwhile comes with the rest
      update((next) => page.data.forEach((job) => next.has(job.id) || next.set(job.id, job)));
    }).catch(failed);
    whenLive().then(() => load(null)).catch(failed);
    return () => left.current.abort();
  }, []);

  useEvents((event) => {
    if (changesMore(event) || !jobs.has(event.job_id)) refetch(event.job_id);
    const job = jobs.get(event.job_id);
    if (job && withEvent(job, event) !== job) {
      update((next) => next.set(job.id, withEvent(next.get(job.id) ?? job, event)));
    }
  });
  return { jobs, complete, older: cursor !== null, loadOlder: () => load(cursor).catch(failed), error };
}

const finite = (value) => (Number.isFinite(value) ? value : null);

export const accuracy = (job) => finite(job.result?.test_accuracy ?? job.latest_metrics.val_accuracy);

export const COLUMNS = {
  name: (job) => (job.name ?? job.id).toLowerCase(),
  status: (job) => job.status,
  progress: (job) => job.progress?.fraction ?? 0,
  best: (job) => finite(job.best?.value),
  accuracy,
  created: (job) => job.created_at,
};

/** Filtered by {status, q, tag} and sorted by a column such as `-created`; jobs without a value come last. */
export function select(jobs, { status, q, tag, sort }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...jobs.values()].filter((job) => {
    const text = `${job.name ?? ""} ${job.id} ${job.tags.join(" ")} ${job.dataset.id} ${job.spec.model.type}`.toLowerCase();
    return (!status.length || status.includes(job.status)) && (!tag || job.tags.includes(tag))
      && words.every((word) => text.includes(word));
  });
  const sign = sort.startsWith("-") ? -1 : 1;
  const value = COLUMNS[sort.replace("-", "")] ?? COLUMNS.created;
  return found.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return a.id < b.id ? 1 : -1;
    if (x === null || y === null) return x === null ? 1 : -1;
    return x < y ? -sign : sign;
  });
}
