// Keys, the theme, and rows that can be walked with j and k. Every page works without this file.
"use strict";

const root = document.documentElement;
const stored = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(name);
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch { /* storage may be closed */ }
  return null;
};

const themes = ["system", "light", "dark"];
const themeButton = document.getElementById("theme");
const theme = () => root.dataset.theme ?? "system";
function setTheme(name) {
  if (name === "system") delete root.dataset.theme;
  else root.dataset.theme = name;
  stored("lumyn-theme", name === "system" ? null : name);
  themeButton.textContent = `Theme: ${name}`;
}
function nextTheme() {
  setTheme(themes[(themes.indexOf(theme()) + 1) % themes.length]);
}
themeButton.textContent = `Theme: ${theme()}`;
themeButton.addEventListener("click", nextTheme);

const help = document.getElementById("keys");
const helpButton = document.getElementById("keys-help");
helpButton.addEventListener("click", () => help.showModal());
const off = document.getElementById("keys-off");
off.checked = stored("lumyn-keys") === "off";
off.addEventListener("change", () => stored("lumyn-keys", off.checked ? "off" : null));

function walk(step) {
  const links = [...document.querySelectorAll("table[data-rows] tbody tr a[data-row]")];
  if (links.length === 0) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
  links[next].focus();
}

const places = { d: "decisions", l: "live", i: "inbox", n: "incidents", p: "policies", s: "switches", m: "memory", b: "backtests", w: "watches", a: "audit", r: "runbooks", y: "gamedays" };
let going = 0;
document.addEventListener("keydown", (event) => {
  if (off.checked || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const target = event.target;
  if (target instanceof HTMLElement && target.closest("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (going && Date.now() - going < 1500 && places[event.key]) {
    going = 0;
    location.href = `/console/${places[event.key]}`;
    return;
  }
  going = 0;
  const search = document.getElementById("q");
  if (event.key === "g") going = Date.now();
  else if (event.key === "/" && search) search.focus();
  else if (event.key === "j") walk(1);
  else if (event.key === "k") walk(-1);
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") help.showModal();
  else return;
  event.preventDefault();
});

// What takes its time to work out comes after the page; without this file it is a link.
for (const place of document.querySelectorAll("[data-fill]")) {
  fetch(place.dataset.fill)
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(answer.status)))
    .then((text) => { place.textContent = text; })
    .catch(() => { /* the link stays */ });
}

// A form is sent once: what it asks for may take a while.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "1";
  for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
});
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });
