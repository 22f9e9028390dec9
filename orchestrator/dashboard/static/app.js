// What pages need beyond links and forms: news that can be paused, times that age, the theme.
// No page depends on it: without scripts everything is still there, one reload away.
"use strict";

const LIVE = "live"; // in sessionStorage: "off" while somebody reads in peace

// --- Live. A bell (server-sent events) rings when there is news, and parts of the page are asked
// for again; without a bell they are asked for now and then. Both stop while the page is hidden or
// paused, so that a browser with many tabs keeps its few connections.

const isLive = () => sessionStorage.getItem(LIVE) !== "off";

let bell = null;
let moved = 0; // when the pointer last moved
let later = []; // timers of what the bell has asked for

document.addEventListener("pointermove", () => { moved = Date.now(); }, { passive: true });

document.addEventListener("htmx:beforeRequest", (event) => {
  if (!event.target.hasAttribute("data-live")) return;
  if (document.hidden || !isLive()) event.preventDefault();
  else if (isBusy(event.target)) {
    event.preventDefault();
    later.push(setTimeout(refreshAll, 2000));
  }
});

// A part is not replaced under somebody's hands.
function isBusy(part) {
  const focused = document.activeElement;
  const held = focused && focused !== document.body && part.contains(focused);
  const pointed = Date.now() - moved < 1500 && part.matches(":hover");
  return held || pointed || document.querySelector("dialog[open]") !== null;
}

function refreshAll() {
  later.forEach(clearTimeout);
  later = [];
  for (const part of document.querySelectorAll("[data-live]")) htmx.trigger(part, "refresh");
}

function onNews() {
  document.dispatchEvent(new CustomEvent("news"));
  if (later.length) return;
  // The stream is ahead of the record, by milliseconds mostly and by half a second at times.
  later = [setTimeout(() => { for (const part of document.querySelectorAll("[data-live]")) htmx.trigger(part, "refresh"); }, 250), setTimeout(refreshAll, 1500)];
}

function listen() {
  const topic = document.body.dataset.topic;
  const wanted = topic && isLive() && !document.hidden;
  if (!wanted && bell) { bell.close(); bell = null; }
  if (!wanted || bell) return;
  bell = new EventSource(`/live/${topic}`);
  bell.addEventListener("news", onNews);
  bell.addEventListener("error", () => {
    if (!bell || bell.readyState !== EventSource.CLOSED) return; // it comes back by itself
    bell = null;
    setTimeout(listen, 5000);
  });
}

document.addEventListener("visibilitychange", () => {
  listen();
  if (!document.hidden && isLive()) refreshAll();
});
window.addEventListener("pagehide", () => { bell?.close(); bell = null; });
window.addEventListener("pageshow", listen);

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
    listen();
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

// On a telephone the navigation is longer than the screen.
document.querySelector("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
showLive();
showTheme();
ageAll();
listen();
