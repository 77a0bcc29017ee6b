// The page's state lives in the URL's fragment: #/jobs?status=running&sort=best.
import { useEffect, useState } from "./preact.js";

function read() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/jobs", params: new URLSearchParams(query) };
}

export function link(path, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value)).toString();
  return `#${path}${query ? `?${query}` : ""}`;
}

export function go(path, params) {
  location.hash = link(path, params);
}

/** Changes parameters of the current page, without a step in the browser's history. */
export function setParams(changes) {
  const { path, params } = read();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, value);
  }
  history.replaceState(null, "", link(path, Object.fromEntries(params)));
  window.dispatchEvent(new Event("hashchange"));
}

export function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
}
