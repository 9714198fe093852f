// The end of it all: the links while they live, the countdown, and deleting now.

import { encode } from "../share.js";
import { html, useSignal } from "../vendor/preact.js";
import { clock, count } from "../words.js";
import { CopyButton } from "./copybutton.js";
import { Dialog } from "./dialog.js";

const SOON_SECONDS = 60;

export function Ending({ page, running, isBusy }) {
  const { job } = page.work;
  const { phase, id, token, expires, outputs } = job.value;
  const isSharing = useSignal(false);
  const isDeleting = useSignal(false);
  const left = phase === "over" && expires ? (expires - Math.max(page.now.value, Date.now())) / 1000 : null;
  const isSoon = left !== null && left <= SOON_SECONDS;
  const isHere = id && phase !== "gone";
  const download = page.server.url(`/download/${id}?format=zip`);
  return html`
    <div class="ending" data-soon=${isSoon}>
      ${left !== null && phase === "over" && html`
        <span class="countdown">Deletes in ${clock(left)}</span>
        ${isSoon && html`<span role="alert">This job is deleted within a minute.
          ${outputs.length > 0 && html` <a href=${download} download>Download all</a>`}</span>`}`}
      <span class="spring"></span>
      <button type="button" onClick=${() => { isSharing.value = true; }}>Share</button>
      ${isHere && token && html`
        <button type="button" disabled=${isBusy && phase !== "queued" && phase !== "running"}
          onClick=${() => { isDeleting.value = true; }}>Delete now</button>`}
      <${Dialog} open=${isSharing} title="Share">
        <${Links} page=${page} isHere=${isHere} left=${left} />
        <p class="buttons"><button type="button" onClick=${() => { isSharing.value = false; }}>Close</button></p>
      <//>
      <${Dialog} open=${isDeleting} title="Delete this job?">
        <p>${isBusy ? "It is ended. " : ""}Its code, its log${outputs.length ? ` and ${count(outputs.length, "file")}` : ""}
          ${" "}are gone then, for everybody, and cannot be brought back. What you wrote stays in this tab.</p>
        <p class="buttons">
          <button type="button" class="danger" onClick=${() => { isDeleting.value = false; running.remove(); }}>Delete now</button>
          <button type="button" onClick=${() => { isDeleting.value = false; }}>Keep it</button>
        </p>
      <//>
    </div>`;
}

function Links({ page, isHere, left }) {
  const { work, source } = page;
  const code = useSignal(undefined);
  if (code.value === undefined) {
    code.value = null;
    const { interpreter, args = [], stdin = "" } = told(source);
    const files = source.files.value.filter(({ text }) => text !== undefined);
    const isWhole = files.length === source.files.value.length;
    (isWhole ? encode({ interpreter, files, args, stdin }) : Promise.resolve(null)).then((fragment) => {
      code.value = fragment === null ? "" : page.codeLink(fragment);
    });
  }
  return html`
    ${isHere && html`
      <h3>The job</h3>
      <p>Whoever has this link reads its log and files, and can change nothing.
        ${left === null ? " It works until the job is deleted." : ` It dies in ${clock(left)}.`}</p>
      <p class="link"><input type="text" readonly aria-label="Link to the job" value=${page.linkOf(work.job.value.id)} />
        <${CopyButton} text=${page.linkOf(work.job.value.id)} /></p>`}
    <h3>The code</h3>
    ${code.value
      ? html`<p>The code is in the link itself, behind the #: no server is told.</p>
          <p class="link"><input type="text" readonly aria-label="Link with the code" value=${code.value} />
            <${CopyButton} text=${code.value} /></p>`
      : html`<p>${code.value === "" ? "The code is too large for a link." : "…"}</p>`}`;
}

function told(source) {
  try {
    return source.manifest();
  } catch {
    return { interpreter: source.language.value };
  }
}
