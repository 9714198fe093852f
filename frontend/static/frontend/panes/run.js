// One button in one place: it runs, or it cancels. Beside it what would be sent, or why it was not.

import { shownName } from "../preview.js";
import { faultOfFiles, largest } from "../project.js";
import { sizeOf } from "../source.js";
import { html } from "../vendor/preact.js";
import { count, size } from "../words.js";
import { waitOf } from "./running.js";

export function Run({ page, running, isBusy }) {
  const { source, work, info } = page;
  const job = work.job.value;
  const wait = waitOf(job, page.now.value);
  const { upload_bytes: most } = info.limits_detail;
  const files = source.files.value.map((file) => ({ ...file, size: sizeOf(file) }));
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const isLarge = bytes > most;
  const fault = isLarge ? "" : faultOfFiles(files, most);
  const label = wait ? `Run again in ${wait} s` : "Run";
  return html`
    <section class="run" aria-label="Run">
      ${isBusy
        ? html`<button type="button" class="main stop" disabled=${job.isCancelling} onClick=${running.cancel}>
            ${job.isCancelling ? "Cancelling" : "Cancel"}</button>`
        : html`<button type="button" class="main" disabled=${wait > 0 || isLarge || fault !== ""} onClick=${running.run}>
            ${label} <kbd>Ctrl Enter</kbd></button>`}
      <span class="sum">${count(files.length, "file")}, ${size(bytes)}</span>
      ${running.trouble.value && html`<p class="trouble" role="alert">${running.trouble.value}</p>`}
      ${fault && html`<p class="trouble" role="alert">${fault}</p>`}
      ${isLarge && html`
        <p class="trouble" role="alert">${size(bytes)} is over the limit of ${size(most)}. The largest files:</p>
        <ul class="largest">${largest(files).map((file) => html`
          <li key=${file.path}>${shownName(file.path)}, ${size(file.size)}
            <button type="button" onClick=${() => source.removeFile(source.files.value.findIndex(
              (other) => other.path === file.path))}>Remove</button></li>`)}
        </ul>`}
    </section>`;
}
