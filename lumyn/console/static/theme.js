// The chosen theme, before the first paint; without a choice the system's counts.
(() => {
  document.documentElement.dataset.js = "on"; // what needs it has its place from the first paint
  try {
    const chosen = localStorage.getItem("lumyn-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* storage may be closed: the system's theme, then */ }
})();
