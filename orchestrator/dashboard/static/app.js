// What pages need beyond links and forms: live updates that can be paused, times that age, theme.
// No page depends on it: without scripts everything is still there, one reload away.
"use strict";

const LIVE = "live"; // in sessionStorage: "off" while somebody reads in peace

// --- Live: polling parts of a page stop while it is hidden or paused.

const isLive = () => sessionStorage.getItem(LIVE) !== "off";

document.addEventListener("htmx:beforeRequest", (event) => {
  const polled = event.target.hasAttribute("data-live");
  if (polled && (document.hidden || !isLive() || isBusy(event.target))) event.preventDefault();
});

// A part is not replaced under somebody's hands.
function isBusy(part) {
  const focused = document.activeElement;
  const held = focused && focused !== document.body && part.contains(focused);
  return held || part.querySelector("dialog[open], details.menu[open]") !== null;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && isLive()) refreshAll();
});

function refreshAll() {
  for (const part of document.querySelectorAll("[data-live]")) htmx.trigger(part, "refresh");
}

function showLive() {
  const button = document.getElementById("live");
  if (!button) return;
  button.setAttribute("aria-pressed", String(isLive()));
  button.querySelector("span").textContent = isLive() ? "Live" : "Paused";
}

// --- A part that cannot be fetched says since when it is old, and goes on trying.

const failedSince = (event) => {
  if (!event.target.hasAttribute || !event.target.hasAttribute("data-live")) return;
  const banner = document.getElementById("stale");
  if (!banner || !banner.hidden) return;
  banner.querySelector("time").textContent = new Date().toLocaleTimeString("en-GB");
  banner.hidden = false;
};
document.addEventListener("htmx:sendError", failedSince);
document.addEventListener("htmx:responseError", failedSince);
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) document.getElementById("stale")?.setAttribute("hidden", "");
});

// --- Times: relative ones age between two updates; the absolute one is in the title.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function age(moment, now) {
  const seconds = (now - moment) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  const whole = Math.abs(Math.round(seconds));
  const [size, unit] = UNITS.find(([size]) => whole >= size) || UNITS[3];
  const said = `${Math.floor(whole / size)} ${unit}`;
  return seconds > 0 ? `${said} ago` : `in ${said}`;
}

// The server's clock, as its page said it: this machine's may be wrong by minutes.
const offset = Number(new Date(document.documentElement.dataset.now)) - Date.now();

function ageAll() {
  const now = Date.now() + (offset || 0);
  for (const each of document.querySelectorAll("time[data-age]")) {
    const said = age(Date.parse(each.dateTime), now);
    if (each.textContent !== said) each.textContent = said;
  }
}
setInterval(() => { if (!document.hidden && isLive()) ageAll(); }, 5000);

// --- Theme: light, dark, or what the system says.

const THEMES = ["system", "light", "dark"];

function theme() {
  return localStorage.getItem("theme") || "system";
}

function setTheme(chosen) {
  if (chosen === "system") {
    localStorage.removeItem("theme");
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem("theme", chosen);
    document.documentElement.dataset.theme = chosen;
  }
  showTheme();
  document.dispatchEvent(new CustomEvent("themed"));
}

function showTheme() {
  const button = document.getElementById("theme");
  if (button) button.setAttribute("aria-label", `Theme: ${theme()}; change`);
  if (button) button.title = `Theme: ${theme()}`;
}

// --- Forms that ask before they act, and buttons that copy.

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
  const copier = event.target.closest("[data-copies]");
  if (copier) copy(copier);
  if (event.target.closest("#theme")) {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  }
  if (event.target.closest("#live")) {
    sessionStorage.setItem(LIVE, isLive() ? "off" : "on");
    showLive();
    if (isLive()) refreshAll();
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

async function copy(button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copies);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy"; // a page that is not https has no clipboard
  }
  setTimeout(() => { button.textContent = said; }, 1500);
}

// A filter that is chosen is applied; without scripts there is a button for it.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-applies]");
  if (form && event.target.tagName === "SELECT") form.requestSubmit();
});

// Filters that are empty stay out of the address.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) {
    if (field.name && field.value === "") field.disabled = true;
  }
});
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form[method=get] :disabled")) field.disabled = false;
});

showLive();
showTheme();
ageAll();
