// The events of all jobs, as one stream for the whole page. It is read with fetch, as EventSource cannot send a key,
// and goes on after a cut behind the last event that arrived: nothing is lost, nothing comes twice.
import { useEffect, useRef, useState } from "./preact.js";
import { send } from "./api.js";

const SILENCE_MS = 40_000; // the server gives a sign of life every 15 s
const MAX_PAUSE_MS = 5000;

const listeners = new Set();
const watchers = new Set();
let lastId = null;
let connected = false;
let cut = new AbortController();
let open;
const opened = new Promise((resolve) => { open = resolve; });

/** Resolves once events arrive: what is fetched afterwards misses none. */
export const whenLive = () => opened;

function setConnected(value) {
  if (value === connected) return;
  connected = value;
  watchers.forEach((watcher) => watcher(value));
}

function dispatch(message) {
  const fields = {};
  for (const line of message.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  if (fields.id !== undefined) {
    lastId = fields.id;
    setConnected(true);
    open();
  }
  if (fields.data) listeners.forEach((listener) => listener(JSON.parse(fields.data)));
}

async function read() {
  let silence;
  const reset = () => {
    clearTimeout(silence);
    silence = setTimeout(() => cut.abort(), SILENCE_MS);
  };
  cut = new AbortController();
  reset();
  try {
    const headers = { Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": lastId }) };
    const response = await send("/v1/events", { headers, signal: cut.signal });
    if (!response.ok) return false;
    if (lastId !== null) setConnected(true);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return true;
      reset();
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      messages.forEach(dispatch);
    }
  } catch (error) {
    if (error instanceof TypeError || error.name === "AbortError") return false; // the network's errors
    throw error;
  } finally {
    clearTimeout(silence);
    setConnected(false);
  }
}

export async function startLive() {
  window.addEventListener("keychange", () => cut.abort());
  for (let pause = 250; ; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
    if (await read()) pause = 250;
    await new Promise((done) => {
      setTimeout(done, pause);
      window.addEventListener("keychange", done, { once: true });
    });
  }
}

/** Calls `handler` with every event while the component is there. */
export function useEvents(handler) {
  const latest = useRef(handler);
  latest.current = handler;
  useEffect(() => {
    const listener = (event) => latest.current(event);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
}

export function useConnected() {
  const [value, setValue] = useState(connected);
  useEffect(() => {
    watchers.add(setValue);
    setValue(connected);
    return () => watchers.delete(setValue);
  }, []);
  return value;
}

