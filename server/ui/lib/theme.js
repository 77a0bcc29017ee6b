const NAME = "epochd-theme";
const ORDER = ["auto", "light", "dark"];

export const theme = () => localStorage.getItem(NAME) ?? "auto";

export function applyTheme() {
  document.documentElement.dataset.theme = theme();
  window.dispatchEvent(new Event("themechange"));
}

/** The next of automatic, light, dark. */
export function switchTheme() {
  localStorage.setItem(NAME, ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length]);
  applyTheme();
}

/** Calls `changed` whenever the page's colours do; returns how to stop that. */
export function onTheme(changed) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", changed);
  window.addEventListener("themechange", changed);
  return () => {
    system.removeEventListener("change", changed);
    window.removeEventListener("themechange", changed);
  };
}
