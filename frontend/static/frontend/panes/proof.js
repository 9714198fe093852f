// Verify: fetches receipt, logs and files once more and holds them against what the worker has signed.

import { verify } from "../verify.js";
import { html, useSignal } from "../vendor/preact.js";

// Of a step: it holds, it does not, or (null) there was nothing to compare.
const TONES = { true: "good", false: "bad", null: "idle" };
const ICONS = { true: "✓", false: "✕", null: "–" };
const WORDS = { true: "right", false: "wrong", null: "not compared" };

export function Proof({ page }) {
  const { server, work } = page;
  const { result, id, nonce, outputs } = work.job.value;
  const state = useSignal({ isBusy: false, steps: null, ok: false, trouble: "" });
  const pinned = useSignal("");
  const worker = result.worker_metadata.worker_id;

  if (!result.receipt) {
    return html`<h2>Receipt</h2><p>This server does not sign results.</p>`;
  }
  const check = async () => {
    state.value = { isBusy: true, steps: null, ok: false, trouble: "" };
    try {
      const [envelope, status, stdout, stderr] = await Promise.all([
        server.bytes(`/receipt/${id}`), server.ask(`/status/${id}`),
        server.bytes(`/logs/${id}?stream=stdout`), server.bytes(`/logs/${id}?stream=stderr`),
      ]);
      const found = [];
      for (const output of outputs) { // one after the other: all at once may be 100 MB
        found.push({ ...output, bytes: await server.bytes(output.download_url) });
      }
      const { ok, steps } = await verify({
        envelope, status, worker: pinned.value.trim() || worker, jobId: id, nonce: nonce || undefined,
        logs: { stdout, stderr }, outputs: found,
      });
      state.value = { isBusy: false, steps, ok, trouble: "" };
    } catch (error) {
      state.value = { isBusy: false, steps: null, ok: false, trouble: error.message };
    }
  };
  const { isBusy, steps, ok, trouble } = state.value;
  return html`
    <h2>Receipt</h2>
    <div class="proof">
      <p>The worker signed this result. Verify fetches log and files again and compares every byte, here in this browser.</p>
      <label>Worker's key, if you know it from elsewhere
        <input type="text" value=${pinned.value} placeholder=${worker} spellcheck=${false}
          onInput=${(event) => { pinned.value = event.target.value; }} /></label>
      <p class="buttons"><button type="button" disabled=${isBusy} onClick=${check}>${isBusy ? "Verifying" : "Verify"}</button>
        ${" "}<a href=${server.url(`/receipt/${id}`)} download=${`${id}.receipt.json`}>Download the receipt</a></p>
      ${trouble && html`<p class="trouble" role="alert">${trouble}</p>`}
      ${steps && html`
        <p role="status" class="verdict" data-tone=${ok ? "good" : "bad"}><strong>${ok ? "✓ All of it is as signed" : "✕ Does not match"}</strong></p>
        <ul class="steps">${steps.map((step) => html`
          <li key=${step.detail} data-tone=${TONES[step.ok]}><span aria-hidden="true">${ICONS[step.ok]}</span>
            <span class="unseen">${WORDS[step.ok]}:</span> ${step.detail}</li>`)}</ul>`}
    </div>`;
}
