// The life of the one job that the page shows: sent, watched, cancelled, deleted, forgotten. What is
// known of it stands in the signal `job`, which the panes read; log lines go past it, to `onLog`.

import { follow } from "./feed.js";
import { hex, Problem } from "./server.js";
import { signal } from "./vendor/preact.js";

const SAMPLES = 240; // of metrics: two minutes at two a second
const NOTHING = {
  /** idle, packing, uploading, queued, running, over, refused (never a job), gone (no longer a job) */
  phase: "idle",
  id: "",
  token: "", // "": we may read it and no more
  nonce: "",
  position: 0, // in line
  sent: 0,
  toSend: 0,
  limits: null,
  metrics: null,
  samples: [],
  seen: [], // files that the job says it makes
  more: 0,
  started: 0, // ms, our clock
  result: null,
  outputs: [],
  isReadOnce: false, // what is fetched of it may be the last that it gives
  truncated: false, // there were more outputs than are kept
  expires: 0, // ms, our clock
  problem: null,
  refusedAt: 0, // ms, our clock
  connection: { broken: false, tries: 0 },
  isCancelling: false,
  printed: false,
  gone: null, // why: "deleted", "expired", "lost", "unknown"; `proof` beside "deleted"
  proof: "",
  goneAt: 0,
};

/**
 * @param {import("./server.js").Server} server
 * @param {{onLog: (frame: object) => void, onStart: (id: string) => void, onGone: (why: string) => void}} listeners
 */
export function createJob(server, { onLog, onStart, onGone }) {
  const job = signal(NOTHING);
  let hangUp = () => {};
  let sending = null;
  let alarm;

  const set = (change) => { job.value = { ...job.value, ...change }; };

  const reset = (change) => {
    hangUp();
    clearTimeout(alarm);
    job.value = { ...NOTHING, ...change };
  };

  /** Sends what `pack()` makes, a FormData, and follows the job that it becomes. */
  async function run(manifest, pack) {
    const nonce = hex(crypto.getRandomValues(new Uint8Array(16)));
    reset({ phase: "packing", nonce, isReadOnce: manifest.burn_after_read === true });
    sending = new AbortController();
    try {
      const form = await pack({ ...manifest, nonce });
      const onProgress = (sent, toSend) => set({ phase: "uploading", sent, toSend });
      const taken = await server.submit(form, { onProgress, signal: sending.signal });
      set({ phase: "queued", id: taken.job_id, token: taken.owner_token, position: taken.queue_position });
      keep(taken.job_id, { token: taken.owner_token, nonce });
      onStart(taken.job_id);
      watch();
    } catch (error) {
      if (error.name === "AbortError") reset({ phase: "idle" });
      else set({ phase: "refused", problem: asProblem(error), refusedAt: Date.now() });
    } finally {
      sending = null;
    }
  }

  /** Shows the job `id`, which was sent by this tab, another, or somebody else. */
  async function open(id) {
    reset({ phase: "queued", id, ...kept(id) });
    try {
      await server.ask(`/status/${id}`);
      watch();
    } catch (error) {
      if (error.reason === "unknown_job") vanish(job.value.token ? "lost" : "unknown");
      else set({ phase: "refused", problem: asProblem(error) });
    }
  }

  function watch() {
    hangUp = follow(server, job.value.id, {
      onFrame: hear,
      onConnection: (connection) => set({ connection }),
      onGone: () => vanish(job.value.expires && Date.now() >= job.value.expires - 1000 ? "expired" : "lost"),
    });
  }

  function hear(frame) {
    if (frame.type === "stdout" || frame.type === "stderr" || frame.type === "gap") {
      if (!job.value.printed) set({ printed: true });
      onLog(frame);
    } else if (frame.type === "status") {
      set({ phase: frame.status, position: frame.queue_position });
      if (frame.status === "running" && !job.value.started) set({ started: Date.now() });
    } else if (frame.type === "metrics") {
      const samples = [...job.value.samples.slice(1 - SAMPLES), frame];
      const started = Date.now() - frame.wall_seconds * 1000; // late comers too
      set({ metrics: frame, samples, started, limits: frame.limits });
    } else if (frame.type === "files") {
      set({ seen: frame.files, more: frame.more });
    } else if (frame.type === "end") {
      end(frame.result);
    }
  }

  async function end(result) {
    const connection = NOTHING.connection;
    set({ phase: "over", result, outputs: result.outputs, connection, isCancelling: false });
    set({ expires: server.moment(result.expires_at) });
    alarm = setTimeout(fade, Math.max(0, job.value.expires - Date.now()) + 500);
    try {
      const { outputs, truncated } = await server.ask(`/outputs/${result.job_id}`); // all; and its clock
      set({ outputs, truncated, expires: server.moment(result.expires_at) });
    } catch (error) {
      if (error.reason === "unknown_job") vanish("expired");
    }
  }

  /** Its time is over: asks until the server says that it is gone. */
  async function fade() {
    if (job.value.phase !== "over") return;
    try {
      await server.ask(`/status/${job.value.id}`);
    } catch (error) {
      if (error.reason === "unknown_job") return vanish("expired");
    }
    alarm = setTimeout(fade, 2000);
  }

  function vanish(why, proof = "") {
    clearTimeout(alarm);
    hangUp();
    forget(job.value.id);
    set({ phase: "gone", gone: why, proof, goneAt: Date.now(), isCancelling: false });
    onGone(why);
  }

  /** Ends the job; before there is one, the sending. Throws Problem. */
  async function cancel() {
    if (sending) return sending.abort();
    set({ isCancelling: true });
    try {
      await server.ask(`/jobs/${job.value.id}/cancel`, { method: "POST", token: job.value.token });
    } catch (error) {
      set({ isCancelling: false });
      throw error;
    }
  }

  /** Deletes the job now, then asks for it once more: the answer is the proof. Throws Problem. */
  async function remove() {
    const { id, token } = job.value;
    hangUp();
    clearTimeout(alarm);
    try {
      await server.ask(`/jobs/${id}`, { method: "DELETE", token });
    } catch (error) {
      if (error.reason !== "unknown_job") {
        if (job.value.phase === "over") alarm = setTimeout(fade, 2000);
        else watch();
        throw error;
      }
    }
    let proof = "";
    try {
      await server.ask(`/status/${id}`);
    } catch (error) {
      proof = error.reason === "unknown_job" ? `GET /status/${id} → 404 Not Found` : error.message;
    }
    vanish("deleted", proof);
  }

  return { job, run, open, cancel, remove, reset: () => reset({}) };
}

function asProblem(error) {
  return error instanceof Problem ? error : new Problem(error.message, { reason: "page" });
}

// ---- what this tab remembers of a job, so that a reload may still cancel and delete it

function keep(id, secrets) {
  try {
    sessionStorage.setItem(`job:${id}`, JSON.stringify(secrets));
  } catch { /* without storage a reload reads only */ }
}

function kept(id) {
  try {
    const { token = "", nonce = "" } = JSON.parse(sessionStorage.getItem(`job:${id}`)) ?? {};
    return { token, nonce };
  } catch {
    return {};
  }
}

function forget(id) {
  try {
    sessionStorage.removeItem(`job:${id}`);
  } catch { /* nothing was kept */ }
}
