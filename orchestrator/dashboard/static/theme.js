// Sets the chosen theme before the first paint, so that no page flashes; it stands alone in <head>.
"use strict";
{
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
