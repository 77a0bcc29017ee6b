import { html, useEffect, useState } from "../lib/preact.js";
import { request } from "../lib/api.js";

/** An image that may need the key, hence not by its address; `wide` enlarges small ones, `whole` does not fit in large ones. */
export function Picture({ path, alt, wide = false, whole = false }) {
  const [source, setSource] = useState(null);
  useEffect(() => {
    let url = null;
    let gone = false;
    request(path).then((response) => response.blob()).then((blob) => {
      if (gone) return;
      url = URL.createObjectURL(blob);
      setSource(url);
    }).catch(() => {});
    return () => {
      gone = true;
      if (url) URL.revokeObjectURL(url);
    };
  }, [path]);
  return source && html`<img class="sheet ${wide ? "wide" : ""} ${whole ? "whole" : ""}" src=${source} alt=${alt} />`;
}
