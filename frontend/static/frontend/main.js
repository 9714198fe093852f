// The page: asks the server who it is, brings back what was written, and shows the job that the
// address names: /j/ID, or #job=ID where plain files are served.

import { createJob } from "./job.js";
import { App } from "./panes/app.js";
import { Server } from "./server.js";
import { createSource } from "./source.js";
import { batch, effect, html, render, signal } from "./vendor/preact.js";

try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* as the system has it */ }

const meta = (name) => document.querySelector(`meta[name="sandrun-${name}"]`)?.content ?? "";
const isFile = meta("links").startsWith("#"); // no server of ours knows /j/ID there

const jobInAddress = () =>
  /^\/j\/([\w-]+)$/.exec(location.pathname)?.[1] ?? /^#job=([\w-]+)$/.exec(location.hash)?.[1]
  ?? /^#(job[_-][\w-]+)$/.exec(location.hash)?.[1] ?? "";
const addressOf = (id) => (isFile ? `${location.pathname}${location.search}#job=${id}` : `/j/${id}${location.search}`);
const home = () => (isFile ? `${location.pathname}${location.search}` : `/${location.search}`);

async function start() {
  const server = new Server(meta("server"));
  const page = {
    server,
    info: null,
    stats: signal(null), // quota and queue, as /stats tells
    now: signal(Date.now()), // while something on the page counts
    log: signal(null), // the island, once it stands
    linkOf: (id) => new URL(addressOf(id), location.href).href,
    codeLink: (fragment) => new URL(`${home()}${fragment}`, location.href).href,
  };
  const early = []; // frames before the log stands
  const listeners = {
    onLog: (frame) => (page.log.value ? page.log.value.add(frame) : early.push(frame)),
    onStart: (id) => {
      if (jobInAddress() !== id) history.pushState(null, "", addressOf(id));
    },
    onGone: (why) => {
      if (why === "deleted") page.log.value?.clear(); // what was deleted is not to be seen here either
      ask(page);
    },
  };

  page.info = await server.ask("/");
  page.source = createSource(page.info);
  page.work = createJob(server, listeners);
  await page.source.begin(location.hash);
  effect(() => {
    const log = page.log.value;
    if (log) early.splice(0).forEach((frame) => log.add(frame));
  });

  const id = jobInAddress();
  if (id) page.work.open(id);
  window.addEventListener("popstate", () => {
    const named = jobInAddress();
    if (named === page.work.job.value.id) return;
    page.log.value?.clear();
    if (named) page.work.open(named);
    else page.work.reset();
  });
  window.addEventListener("pagehide", page.source.save);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") page.source.save();
    else ask(page);
  });

  tick(page);
  ask(page);
  setInterval(() => document.visibilityState === "visible" && ask(page), 10_000);
  effect(() => { if (page.work.job.value.phase === "over") ask(page); });
  render(html`<${App} page=${page} />`, document.getElementById("app"));
}

/** Quota and queue: what is nice to know, so that a failure says nothing. */
async function ask(page) {
  try {
    const { your_quota: quota, system } = await page.server.ask("/stats");
    batch(() => { page.stats.value = { quota, system }; });
  } catch { /* it is asked again */ }
}

function tick(page) {
  const { job } = page.work;
  setInterval(() => {
    const { phase, problem } = job.value;
    const counts = phase === "running" || phase === "over" || (phase === "refused" && problem?.retryAfter);
    if (counts && document.visibilityState === "visible") page.now.value = Date.now();
  }, 250);
}

start().catch((error) => {
  const place = document.getElementById("app");
  const said = document.createElement("p");
  said.setAttribute("role", "alert");
  said.className = "trouble";
  said.textContent = `${error.message} Reload the page to try again.`;
  place.replaceChildren(said);
});
