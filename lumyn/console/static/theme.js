// The chosen theme, before the first paint; without a choice the system's counts.
(() => {
  try {
    const chosen = localStorage.getItem("lumyn-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* storage may be closed: the system's theme, then */ }
})();
