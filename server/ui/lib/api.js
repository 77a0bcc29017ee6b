// Requests to the API, with the key that the user gave. A key lives as long as its tab.
const NAME = "epochd-key";
const RETRIES = 3;

export const getKey = () => sessionStorage.getItem(NAME);

export function setKey(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
  window.dispatchEvent(new Event("keychange"));
}

/** What a server answered that refused a request: an RFC 9457 problem. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The response, whatever its status; waits where the server says that it is asked too often. */
export async function send(path, { method = "GET", headers = {}, body, signal } = {}) {
  const key = getKey();
  const sent = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...headers };
  for (let attempt = 0; ; attempt += 1) {
    const response = await fetch(path, { method, headers: sent, body, signal, cache: "no-store" });
    if (response.status === 401) window.dispatchEvent(new Event("unauthenticated"));
    if (response.status !== 429 || attempt === RETRIES) return response;
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
  }
}

/** The response of a request that must succeed. */
export async function request(path, options) {
  const response = await send(path, options);
  if (response.ok) return response;
  throw new ApiError(response.status, await response.json().catch(() => ({ title: response.statusText })));
}

export const getJson = async (path, options) => (await request(path, options)).json();

export async function postJson(path, value, options = {}) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const headers = { ...(body ? { "Content-Type": "application/json" } : {}), ...options.headers };
  return (await request(path, { ...options, method: "POST", body, headers })).json();
}

/** Saves a file; without a key the browser streams it to the disk itself. */
export async function download(path, name) {
  const href = getKey() ? URL.createObjectURL(await (await request(path)).blob()) : path;
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  link.click();
  if (href !== path) setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** The command that asks the same in a terminal. */
export function curlOf(path, { method = "GET", body, file } = {}) {
  const parts = ["curl"];
  if (method !== "GET") parts.push(`-X ${method}`);
  if (getKey()) parts.push('-H "Authorization: Bearer $EPOCHD_API_KEY"');
  if (file !== undefined) parts.push(`-F ${file}=@FILE`);
  if (body !== undefined) {
    parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);
  }
  return [...parts, `'${location.origin}${path}'`].join(" ");
}
