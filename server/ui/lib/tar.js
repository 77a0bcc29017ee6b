// A tar (POSIX.1-1988, "ustar") of files, without times and owners: the same files are the same bytes, so that an upload
// that was interrupted is found again.
const BLOCK = 512;
const [MAX_NAME, MAX_PREFIX] = [100, 155];
const encoder = new TextEncoder();

/** [prefix, name] of a path: what a header has room for. */
function split(path) {
  if (encoder.encode(path).length <= MAX_NAME) return ["", path];
  for (let at = path.indexOf("/"); at > 0; at = path.indexOf("/", at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (encoder.encode(name).length <= MAX_NAME && encoder.encode(prefix).length <= MAX_PREFIX) return [prefix, name];
  }
  throw new Error(`${path}: expected a path of at most ${MAX_NAME} bytes, or ${MAX_PREFIX} more for its folders; pack the folder yourself`);
}

function header(path, size) {
  const block = new Uint8Array(BLOCK);
  const put = (at, text) => block.set(encoder.encode(text), at);
  const octal = (value, digits) => value.toString(8).padStart(digits, "0");
  const [prefix, name] = split(path);
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, octal(size, 11));
  put(136, octal(0, 11));
  put(148, " ".repeat(8)); // what the checksum is computed with
  put(156, "0");
  put(257, "ustar\0" + "00");
  put(345, prefix);
  put(148, `${octal(block.reduce((sum, byte) => sum + byte, 0), 6)}\0 `);
  return block;
}

/** A tar of the files that a folder was chosen with, but for hidden ones. */
export function tarOf(files, name) {
  const shown = [...files].filter((file) => !file.webkitRelativePath.split("/").some((part) => part.startsWith(".")));
  shown.sort((a, b) => (a.webkitRelativePath < b.webkitRelativePath ? -1 : 1));
  const parts = shown.flatMap((file) => [
    header(file.webkitRelativePath, file.size), file, new Uint8Array((BLOCK - (file.size % BLOCK)) % BLOCK),
  ]);
  return new File([...parts, new Uint8Array(2 * BLOCK)], name);
}
