// Sends a file in parts; one that was begun before goes on where it broke off.
import { ApiError, postJson, request } from "./api.js";
import { Sha256, base64, hex } from "./sha256.js";

const PART_BYTES = 8 * 2 ** 20;

async function* parts(file, start) {
  for (let at = start; at < file.size; at += PART_BYTES) {
    yield [at, new Uint8Array(await file.slice(at, at + PART_BYTES).arrayBuffer())];
  }
}

async function digestOf(file, tell) {
  const sha256 = new Sha256();
  for await (const [at, bytes] of parts(file, 0)) {
    sha256.update(bytes);
    tell("reading", (at + bytes.length) / file.size);
  }
  return hex(sha256.digest());
}

/** The complete upload; `tell(phase, fraction)` hears how far it is. */
export async function upload(file, tell) {
  const sha256 = await digestOf(file, tell);
  const announced = await postJson("/v1/uploads", { bytes: file.size, sha256, filename: file.name });
  let latest = announced;
  for await (const [at, bytes] of parts(file, announced.offset)) {
    const headers = {
      "Content-Type": "application/offset+octet-stream",
      "Upload-Offset": String(at),
      "Content-Digest": `sha-256=:${base64(new Sha256().update(bytes).digest())}:`,
    };
    latest = await (await request(`/v1/uploads/${announced.id}`, { method: "PATCH", headers, body: bytes })).json();
    tell("sending", latest.offset / file.size);
  }
  if (!latest.complete) throw new ApiError(409, { detail: `${file.name} has not arrived whole` });
  return latest;
}
