// JSON Patch (RFC 6902), as far as the API's repairs go: add, remove, replace, move.

const parts = (pointer) => pointer.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));

function parentOf(value, pointer) {
  const path = parts(pointer);
  const name = path.pop();
  return [path.reduce((inner, part) => inner[part], value), name];
}

function remove(value, pointer) {
  const [parent, name] = parentOf(value, pointer);
  const removed = parent[name];
  if (Array.isArray(parent)) parent.splice(Number(name), 1);
  else delete parent[name];
  return removed;
}

function add(value, pointer, added) {
  const [parent, name] = parentOf(value, pointer);
  if (Array.isArray(parent)) parent.splice(name === "-" ? parent.length : Number(name), 0, added);
  else parent[name] = added;
}

/** A copy of `value` with the operations done. */
export function patched(value, operations) {
  const result = structuredClone(value);
  for (const { op, path, from, value: given } of operations) {
    if (op === "remove") remove(result, path);
    else if (op === "add") add(result, path, given);
    else if (op === "move") add(result, path, remove(result, from));
    else if (op === "replace") {
      const [parent, name] = parentOf(result, path);
      parent[name] = given;
    } else throw new Error(`expected add, remove, replace or move, got ${op}`);
  }
  return result;
}
