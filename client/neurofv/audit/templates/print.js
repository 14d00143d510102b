"use strict";
// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = !each.matches(".notice");
});
addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
