// The files that the job left: names as they appear, then previews and downloads.

import { preview, shownName } from "../preview.js";
import { html, useEffect, useRef, useSignal } from "../vendor/preact.js";
import { count, size } from "../words.js";

const SHOWN = 20; // previews at once: the rest after a click

export function Outputs({ page }) {
  const { phase, id, outputs, seen, more, truncated } = page.work.job.value;
  const shown = useSignal(SHOWN);
  if (phase === "gone") return html`<p class="empty">The files are gone with the job.</p>`;
  if (phase !== "over") {
    if (!seen.length) return html`<p class="empty">Files that the job writes into its folder appear here.</p>`;
    return html`
      <p>Written so far; they can be taken when the job is over:</p>
      <ul class="outputs">${seen.map(({ path, size: bytes }) => html`
        <li key=${path}>${shownName(path)} <span class="sum">${size(bytes)}</span></li>`)}
        ${more > 0 && html`<li>and ${more} more</li>`}</ul>`;
  }
  if (!outputs.length) {
    return html`<p class="empty">No output files. Files that a program writes into its folder are kept here.</p>`;
  }
  const all = (format) => page.server.url(`/download/${id}?format=${format}`);
  return html`
    <p class="all">${count(outputs.length, "file")}. All of them:
      ${" "}<a href=${all("zip")} download>zip</a> <a href=${all("tar.gz")} download>tar.gz</a></p>
    ${truncated && html`<p>There were more files than are kept.</p>`}
    <ul class="outputs">${outputs.slice(0, shown.value).map((output) => html`
      <${Output} key=${output.path} page=${page} output=${output} />`)}</ul>
    ${outputs.length > shown.value && html`
      <p><button type="button" onClick=${() => { shown.value += 5 * SHOWN; }}>Show more of them</button></p>`}`;
}

/** The pictures among the files, to be seen without a search for them. */
export function Pictures({ page }) {
  const { phase, outputs, isReadOnce } = page.work.job.value;
  const pictures = phase === "over" && !isReadOnce ? outputs.filter(({ type }) => type === "image").slice(0, 3) : [];
  return pictures.length > 0 && html`
    <ul class="outputs pictures">${pictures.map((output) => html`
      <${Output} key=${output.path} page=${page} output=${output} />`)}</ul>`;
}

function Output({ page, output }) {
  const place = useRef(null);
  const { server } = page;
  const { isReadOnce } = page.work.job.value;
  useEffect(() => {
    if (isReadOnce) return undefined;
    let isShown = true;
    const tools = {
      document,
      fetchBytes: () => server.bytes(output.download_url),
      previewUrl: () => server.url(output.download_url.replace(/^\/download\//, "/preview/")),
    };
    preview(output, tools).then(
      (element) => { if (isShown) place.current?.replaceChildren(element); },
      (error) => { if (isShown && place.current) place.current.textContent = error.message; },
    );
    return () => { isShown = false; };
  }, [output.download_url]);
  const name = shownName(output.path);
  return html`
    <li>
      <p class="name"><strong>${name}</strong> <span class="sum">${size(output.size_bytes)}</span>
        ${" "}<a href=${server.url(output.download_url)} download aria-label=${`Download ${name}`}>Download</a></p>
      <div class="preview" ref=${place}></div>
    </li>`;
}
