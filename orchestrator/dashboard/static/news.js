// A list that grows at its top while somebody reads it: new rows go in at once only where nobody
// points at the list or has scrolled; else they wait behind a button that says how many there are.
"use strict";
{
  const list = document.querySelector("tbody[data-news]");
  const pill = document.getElementById("pill");
  const MOST = 200; // rows that stand; older ones leave at the bottom
  const EVERY = 15000; // milliseconds, where no bell rings
  const AFTER = [0, 120, 400, 1200]; // milliseconds after the bell: the record follows the stream
  let held = [];
  let newest = list && list.dataset.newest;
  // An alert may be stored after one that came later, so an answer goes back a while.
  const known = new Set(list ? [...list.rows].map((row) => row.id) : []);
  let asking = false;
  let soon = []; // timers of looks that are to come

  const paused = () => document.hidden || sessionStorage.getItem("live") === "off";
  const inUse = () => list.matches(":hover") || pill.matches(":hover") || list.contains(document.activeElement) || window.scrollY > 240;

  async function look() {
    if (asking || paused()) return;
    asking = true;
    const stale = document.getElementById("stale");
    try {
      const answer = await fetch(`${list.dataset.news}${list.dataset.news.includes("?") ? "&" : "?"}newest=${encodeURIComponent(newest)}`, { headers: { "HX-Request": "true" } });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      newest = answer.headers.get("X-Newest") || newest;
      const part = document.createElement("template");
      part.innerHTML = await answer.text();
      const rows = [...part.content.querySelectorAll("tr")].filter((row) => !known.has(row.id));
      rows.forEach((row) => known.add(row.id));
      hold(rows);
      stale.hidden = true;
    } catch {
      if (stale.hidden) stale.querySelector("time").textContent = new Date().toLocaleTimeString("en-GB");
      stale.hidden = false;
    } finally {
      asking = false;
    }
  }

  function hold(rows) {
    held = [...rows, ...held].slice(0, MOST);
    if (held.length && !inUse()) release();
    pill.hidden = held.length === 0;
    pill.textContent = `${held.length} new ${held.length === 1 ? "alert" : "alerts"}: show`;
  }

  function release() {
    for (const row of held.reverse()) {
      row.classList.add("arrived");
      list.prepend(row);
      htmx.process(row);
    }
    say(held.length, held.filter((row) => row.querySelector(".state.critical")).length);
    held = [];
    pill.hidden = true;
    while (list.rows.length > MOST) list.lastElementChild.remove();
    document.getElementById("list").hidden = false;
    document.getElementById("none")?.remove();
  }

  // For who listens instead of looking: at most every five seconds, critical ones at once.
  let said = 0;
  function say(count, critical) {
    const status = document.getElementById("status");
    if (!critical && Date.now() - said < 5000) return;
    said = Date.now();
    status.textContent = `${count} new alerts${critical ? `, ${critical} critical` : ""}`;
  }

  if (list) {
    setInterval(look, EVERY);
    document.addEventListener("news", () => {
      if (!soon.length) soon = AFTER.map((after) => setTimeout(look, after));
      setTimeout(() => { soon = []; }, 300);
    });
    pill.addEventListener("click", () => { window.scrollTo({ top: 0 }); release(); });
    // Not at once: the pointer may be on its way to the button.
    list.addEventListener("mouseleave", () => setTimeout(() => hold([]), 1500));
    document.addEventListener("visibilitychange", look);
  }
}
