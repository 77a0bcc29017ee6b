// Where the vendored library lies, in one place.
export {
  html, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/htm-3.1.1/standalone.module.js";
