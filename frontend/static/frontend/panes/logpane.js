// The log and what is done with it: search, follow, times, one stream alone, the whole of it as a file.

import { createLog } from "../log.js";
import { html, useEffect, useRef, useSignal } from "../vendor/preact.js";
import { count } from "../words.js";
import { Pictures } from "./outputs.js";

const EMPTY = "Output appears here while the job runs. Nothing is kept: files and logs are deleted"
  + " soon after the job ends.";

export function LogPane({ page, onFiles }) {
  const place = useRef(null);
  const unseen = useSignal(0);
  const isFollowing = useSignal(true);
  const hasTimes = useSignal(false);
  const streams = useSignal("all");
  const query = useSignal("");
  const found = useSignal(null);
  const { job } = page.work;
  const { id, phase, printed, outputs } = job.value;

  useEffect(() => {
    const log = createLog(place.current, {
      onFollow: (now) => { isFollowing.value = now.follow; unseen.value = now.unseen; },
    });
    page.log.value = log;
    return () => { page.log.value = null; log.destroy(); };
  }, []);

  const search = (backwards) => {
    found.value = query.value ? page.log.value.search(query.value, { backwards }) : null;
  };
  const all = (stream) => page.server.url(`/logs/${id}?stream=${stream}`);
  return html`
    <div class="logpane">
      <div class="tools" role="group" aria-label="Log">
        <label class="search">Search <input type="search" value=${query.value} spellcheck=${false}
          onInput=${(event) => { query.value = event.target.value; search(false); }}
          onKeyDown=${(event) => { if (event.key === "Enter") { event.preventDefault(); search(event.shiftKey); } }} /></label>
        ${found.value && html`<span class="sum" role="status">${found.value.count
          ? `${found.value.index + 1} of ${found.value.count}` : "not found"}</span>`}
        <label>Show <select value=${streams.value} onChange=${(event) => {
            streams.value = event.target.value;
            page.log.value.setStreams(streams.value);
          }}><option value="all">both streams</option><option value="stdout">stdout</option>
          <option value="stderr">stderr</option></select></label>
        <label><input type="checkbox" checked=${hasTimes.value} onChange=${(event) => {
          hasTimes.value = event.target.checked;
          page.log.value.setTimes(hasTimes.value);
        }} /> Times</label>
        <label><input type="checkbox" checked=${isFollowing.value} onChange=${(event) => {
          page.log.value.setFollow(event.target.checked);
        }} /> Follow</label>
      </div>
      <div class="log" ref=${place}></div>
      ${!printed && html`<p class="empty">${phase === "over" ? "It printed nothing." : EMPTY}</p>`}
      ${unseen.value > 0 && html`<button type="button" class="unread" onClick=${() => page.log.value.setFollow(true)}>
        ↓ ${unseen.value} new</button>`}
      ${id && phase !== "gone" && printed && html`
        <p class="whole">Download: <a href=${all("stdout")} download=${`${id}.stdout.txt`}>stdout</a>
          ${" "}<a href=${all("stderr")} download=${`${id}.stderr.txt`}>stderr</a></p>`}
      <${Pictures} page=${page} />
      ${phase === "over" && outputs.length > 0 && html`
        <p class="whole"><button type="button" onClick=${onFiles}>Show ${count(outputs.length, "file")}</button></p>`}
    </div>`;
}
