// The page as a whole: two halves, the keys that work everywhere, the title of the tab.

import { span, stand } from "../words.js";
import { html, useEffect, useSignal, useSignalEffect } from "../vendor/preact.js";
import { Bar } from "./bar.js";
import { Help } from "./help.js";
import { Result } from "./result.js";
import { Run } from "./run.js";
import { createRunning } from "./running.js";
import { Source } from "./source.js";
import { Tabs } from "./tabs.js";

const BUSY = new Set(["packing", "uploading", "queued", "running"]);

export function App({ page }) {
  const side = useSignal("code"); // which half a narrow screen shows
  const isHelping = useSignal(false);
  const running = createRunning(page, side);
  const { job } = page.work;

  useEffect(() => {
    const onKey = (event) => {
      const command = event.ctrlKey || event.metaKey;
      if (command && event.key === "Enter") running.run();
      else if (command && event.key === ".") running.cancel();
      else if (event.key === "?" && !isTyping(event)) isHelping.value = true;
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);

  useSignalEffect(() => {
    const { icon, line } = stand(job.value);
    document.title = job.value.phase === "idle" ? "Sandrun" : `${icon} ${line} · Sandrun`;
  });

  const isBusy = BUSY.has(job.value.phase);
  return html`
    <a class="skip" href="#job">Skip to the output</a>
    <main>
    <${Bar} page=${page} onHelp=${() => { isHelping.value = true; }} />
    <${Tabs} label="Which half is shown" class="sides" chosen=${side} panels=${false}
      tabs=${[["code", "Code"], ["output", "Output"]]} />
    <div class="halves" data-side=${side.value}>
      <${Source} page=${page} running=${running} />
      <${Run} page=${page} running=${running} isBusy=${isBusy} />
      <${Result} page=${page} running=${running} isBusy=${isBusy} />
    </div>
    <${Announcer} job=${job} />
    <${Help} open=${isHelping} />
    </main>
    <${Foot} page=${page} />`;
}

/** What the server allows, and where to read on. */
function Foot({ page }) {
  const { timeout_seconds: seconds, memory_mb: memory, ttl_seconds: ttl } = page.info.limits_detail;
  const at = (path) => page.server.url(path);
  return html`
    <footer>
      <p>At most ${span(seconds)} and ${memory} MB. Everything is deleted ${span(ttl)} after the end.</p>
      <p><a href=${at("/openapi.json")}>API</a> <a href=${at("/environments")}>Languages</a>
        ${" "}<a href=${at("/health")}>Walls</a></p>
    </footer>`;
}

/** Tells those who cannot see the page when the state changes, and nothing that counts. */
function Announcer({ job }) {
  const { line } = stand(job.value);
  return html`<p role="status" class="unseen">${line}</p>`;
}

function isTyping(event) {
  const [target] = event.composedPath(); // also inside the editor's shadow
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}
