// What the buttons and keys do: run, cancel, delete; and the sentence when that fails.

import { pack } from "../pack.js";
import { signal } from "../vendor/preact.js";

const BUSY = new Set(["packing", "uploading", "queued", "running"]);

export function createRunning(page, side) {
  if (page.running) return page.running; // one for the page, however often it is drawn
  const { source, work, log } = page;
  const trouble = signal(""); // beside the Run button

  async function run() {
    if (BUSY.has(work.job.value.phase) || isWaiting()) return;
    trouble.value = "";
    let manifest;
    try {
      manifest = source.manifest();
    } catch (error) {
      trouble.value = error.message;
      return;
    }
    source.save();
    side.value = "output";
    log.value?.clear();
    await work.run(manifest, (told) => formOf(told, source.files.value));
  }

  /** Refused for a while: until then another try is of no use. */
  function isWaiting() {
    return waitOf(work.job.value, Date.now()) > 0;
  }

  async function attempt(what) {
    trouble.value = "";
    try {
      await what();
    } catch (error) {
      trouble.value = error.message;
    }
  }

  const cancel = () => {
    const { phase, token, isCancelling } = work.job.value;
    if (BUSY.has(phase) && !isCancelling && (token || phase === "packing" || phase === "uploading")) {
      attempt(work.cancel);
    }
  };
  page.running = { run, cancel, remove: () => attempt(work.remove), trouble };
  return page.running;
}

/** Seconds until a refused submission may be tried again. */
export function waitOf({ phase, problem, refusedAt }, now) {
  if (phase !== "refused" || !problem?.retryAfter) return 0;
  return Math.max(0, Math.ceil((refusedAt + problem.retryAfter * 1000 - now) / 1000));
}

async function formOf(manifest, files) {
  const form = new FormData();
  const [only] = files;
  if (files.length === 1 && !only.path.includes("/")) {
    form.append("files", only.blob ?? new Blob([only.text]), only.path);
  } else {
    const data = files.map(({ path, text, blob }) => ({ path, data: blob ?? text }));
    form.append("files", await pack(data), "project.tar.gz");
  }
  form.append("manifest", JSON.stringify(manifest));
  return form;
}
