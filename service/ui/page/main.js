// Which page is shown, and to whom.

import { showJob } from "./job.js";
import { showJobs, showModels } from "./lists.js";
import { Refused, forget, json, keep, passes, pause, token } from "./server.js";

const by = (id) => document.getElementById(id);
const SECTIONS = ["enter", "jobs", "models", "job"];
let leaving = new AbortController();

function trouble(error) {
  const words = error instanceof Refused ? error.message : "The server does not answer. This page tries again.";
  by("trouble").textContent = error ? words : "";
}

function reveal(section) {
  SECTIONS.forEach((name) => (by(name).hidden = name !== section));
  const page = section === "job" ? "jobs" : section;
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.hash === `#/${page}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
}

function askForToken(error) {
  forget();
  by("pages").hidden = by("leave").hidden = true;
  by("caller").textContent = "";
  document.title = "Sign in, neurofv";
  reveal("enter");
  trouble(error);
  by("token").focus();
}

const ROUTES = [
  [/^#\/models$/, "models", "Models, neurofv", (signal) => showModels(signal)],
  [/^#\/(jobs\/[0-9a-f]{32})$/, "job", "Job, neurofv", (signal, name) => showJob(name, signal, trouble)],
  [/^/, "jobs", "Jobs, neurofv", (signal) => showJobs(signal)],
];

async function run(signal, show, names) {
  for (;;) {
    try {
      await show(signal, ...names);
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) return askForToken(error);
      trouble(error);
      if (!passes(error)) return;
      await pause(3000, signal).catch(() => {});
      if (signal.aborted) return;
      trouble(null);
    }
  }
}

function route() {
  leaving.abort();
  leaving = new AbortController();
  trouble(null);
  const [pattern, section, title, show] = ROUTES.find(([pattern]) => pattern.test(location.hash));
  document.title = title;
  reveal(section);
  run(leaving.signal, show, location.hash.match(pattern).slice(1));
}

async function enter() {
  try {
    const { open } = await json("door");
    if (!open && !token()) return askForToken(null);
    const { name, role } = await json("caller");
    by("caller").textContent = open ? "everybody on this machine" : `${name} (${role})`;
    by("leave").hidden = open;
    by("pages").hidden = false;
    route();
  } catch (error) {
    if (error.status === 401) return askForToken(error);
    trouble(error);
    await pause(3000);
    return enter();
  }
}

by("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = by("token").value.trim();
  by("token").value = "";
  // A header holds no others, and no token does.
  if (!/^[\x21-\x7e]+$/.test(given)) return trouble(new Refused(401, "that is no token: it has blanks or other letters"));
  keep(given);
  enter();
});
by("leave").addEventListener("click", () => {
  leaving.abort();
  askForToken(null);
});
window.addEventListener("hashchange", () => {
  if (by("pages").hidden) return;
  route();
  by("main").focus();
});
enter();
