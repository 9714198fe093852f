// The right half: how the job stands, its meters, its log, files and details, and the end of it all.

import { html, useSignal, useSignalEffect } from "../vendor/preact.js";
import { count, remarks, stand } from "../words.js";
import { Details } from "./details.js";
import { Ending } from "./ending.js";
import { Outputs } from "./outputs.js";
import { LogPane } from "./logpane.js";
import { Meters } from "./meters.js";
import { Tabs } from "./tabs.js";

const SILENT_MS = 5000;

export function Result({ page, running, isBusy }) {
  const { job } = page.work;
  const chosen = useSignal("log");
  const { phase, outputs, seen, more, id } = job.value;

  useSignalEffect(() => { // once for each job
    if (job.value.phase === "packing") chosen.value = "log";
  });

  const files = { over: outputs.length, running: seen.length + more }[phase] ?? 0;
  const tabs = [["log", "Log"], ["files", files ? `Files ${files}` : "Files"], ["details", "Details"]];
  const panel = (name, content) => html`
    <div role="tabpanel" id=${`${name}-panel`} aria-labelledby=${`${name}-tab`} hidden=${chosen.value !== name}>
      ${content}
    </div>`;
  return html`
    <section class="result" aria-label="Output" id="job" tabindex="-1">
      <${State} page=${page} running=${running} />
      ${id && phase !== "gone" && html`<${Meters} page=${page} />`}
      <${Tabs} label="What the job left" tabs=${tabs} chosen=${chosen} />
      ${panel("log", html`<${LogPane} page=${page} onFiles=${() => { chosen.value = "files"; }} />`)}
      ${panel("files", chosen.value === "files" && html`<${Outputs} page=${page} />`)}
      ${panel("details", chosen.value === "details" && html`<${Details} page=${page} />`)}
      <${Ending} page=${page} running=${running} isBusy=${isBusy} />
    </section>`;
}

/** The sentence: what happened, whose fault it is, what to do. */
function State({ page, running }) {
  const { job } = page.work;
  const { phase, result, connection, sent, toSend, started, printed } = job.value;
  const others = (page.stats.value?.quota.active_jobs ?? 0) - 1;
  const { tone, icon, line, help } = stand(job.value);
  const silent = phase === "running" && !printed && started && page.now.value - started > SILENT_MS;
  const place = phase === "over" && result.status !== "completed" ? placeIn(page) : null;
  return html`
    <div class="state" data-tone=${tone}>
      <p class="line"><span aria-hidden="true">${icon}</span> <strong>${line}</strong></p>
      ${phase === "uploading" && html`<progress value=${sent} max=${toSend || 1} aria-label="Uploaded"></progress>`}
      ${help && html`<p>${help}</p>`}
      ${phase === "queued" && others > 0 && html`<p>You have ${count(others, "other job")} in line or running.</p>`}
      ${phase === "over" && remarks(result).map((said) => html`<p key=${said}>${said}</p>`)}
      ${silent && html`<p>No output yet. A program that prints into a buffer shows nothing until it is flushed.</p>`}
      ${connection.broken && html`<p role="status">Connection lost, reconnecting (${connection.tries}). The job goes on.</p>`}
      ${place && html`<p><button type="button" onClick=${place.show}>Go to line ${place.line} of ${place.path}</button></p>`}
      ${(phase === "gone" || (phase === "refused" && job.value.problem.status !== 429)) && html`
        <p><button type="button" onClick=${running.run}>Run again</button></p>`}
    </div>`;
}

/** The last place in our own files that a Python traceback names. */
function placeIn(page) {
  const { source, log } = page;
  const text = log.value?.text().slice(-8000) ?? "";
  for (const [, path, line] of [...text.matchAll(/File "([^"\n]+)", line (\d+)/g)].reverse()) {
    const index = source.files.value.findIndex((file) => path === file.path || path.endsWith(`/${file.path}`));
    if (index < 0) continue;
    const show = () => {
      source.active.value = index;
      source.shownLine.value = { line: Number(line) };
    };
    return { path: source.files.value[index].path, line, show };
  }
  return null;
}
