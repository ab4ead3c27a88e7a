// Light or dark: the reader's choice, else the system's. Runs in the head, before the first paint.
"use strict";
(() => {
  const KEY = "g4eval-theme";
  const root = document.documentElement;
  const isDark = () =>
    root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;

  try {
    const stored = localStorage.getItem(KEY);
    if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  } catch {
    // Storage may be off for files; the system's choice stands then.
  }

  // An open menu closes on Escape and on a click elsewhere.
  const closeMenus = (except) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(except)) menu.open = false;
    }
  };
  addEventListener("click", (event) => closeMenus(event.target));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeMenus(null);
  });

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () =>
      button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} mode`);
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      label();
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // As above.
      }
    });
  });
})();
