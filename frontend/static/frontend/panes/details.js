// What is known of the job in full, the proof of it, and the same job from elsewhere.

import { copies } from "../copies.js";
import { html, useSignal } from "../vendor/preact.js";
import { duration, memory } from "../words.js";
import { CopyButton } from "./copybutton.js";
import { Proof } from "./proof.js";
import { Tabs } from "./tabs.js";

export function Details({ page }) {
  const { phase, id, result } = page.work.job.value;
  return html`
    ${phase === "over" ? html`<${Facts} result=${result} />`
      : html`<p class="empty">${id && phase !== "gone" ? `Job ${id}` : "Verdict and usage stand here when a job is over."}</p>`}
    ${phase === "over" && html`<${Proof} page=${page} key=${id} />`}
    <${Copies} page=${page} />`;
}

function Facts({ result }) {
  const used = result.execution_metadata;
  const facts = [
    ["Job", result.job_id],
    ["Status", result.reason ? `${result.status}, ${result.reason}` : result.status],
    ["Exit code", used.exit_code < 0 ? "none" : used.exit_code],
    ["Time", duration(used.wall_time_ms / 1000)],
    ["CPU time", `${used.cpu_seconds.toFixed(3)} s`],
    ["Memory", `${memory(used.memory_peak_bytes)} at most`],
    ["Interpreter", used.interpreter],
    ["Hash of what was sent", result.job_hash],
    ["Worker", result.worker_metadata.worker_id ?? "signs nothing"],
  ];
  return html`<dl class="facts">${facts.map(([name, value]) => html`
    <div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Copies({ page }) {
  const { source, server } = page;
  const chosen = useSignal("curl");
  let texts;
  try {
    const files = source.files.value.map(({ path, text, blob }) => ({ path, text: text ?? null, size: blob?.size ?? text.length }));
    texts = copies({ server: server.base, manifest: source.manifest(), files });
  } catch (error) {
    return html`<p>${error.message}</p>`;
  }
  const tabs = [["curl", "curl"], ["cli", "Command line"], ["python", "Python"]];
  return html`
    <h2>The same from elsewhere</h2>
    <${Tabs} label="The same job as" tabs=${tabs} chosen=${chosen} prefix="copy-" />
    ${tabs.map(([name]) => html`
      <div role="tabpanel" id=${`copy-${name}-panel`} aria-labelledby=${`copy-${name}-tab`} key=${name}
        hidden=${chosen.value !== name}>
        <pre class="copy" tabindex="0">${texts[name]}</pre>
        <${CopyButton} text=${texts[name]} />
      </div>`)}`;
}
