// The receipt of a job, checked here: that what the page shows and downloads is what a worker has
// signed. docs/receipts.md is the specification, sandrun/receipt.py the same in Python.

import { checkAnswer, shown } from "./receipt/answer.js";
import { sha256 } from "./receipt/ed25519.js";
import { verified } from "./receipt/envelope.js";
import { shortened } from "./receipt/key.js";
import { NotVerified, told } from "./receipt/refusal.js";

export { isWorkerId, shortened } from "./receipt/key.js";

/**
 * One thing that was checked. `detail` is a sentence; `ok` is null for what there was nothing to compare
 * with; `kind` (a word of sandrun/errors.py) is there when it is false.
 * @typedef {{name: "signature" | "job" | "nonce" | "answer" | "stdout" | "stderr" | "file",
 *   ok: boolean | null, detail: string, kind?: string}} Step
 */

/**
 * Checks one thing after the other; behind a signature that does not hold, nothing more, since nothing
 * then speaks for what the receipt says.
 * @param {object} asked
 * @param {Uint8Array | string | object} asked.envelope best as the text that /receipt answers: an object
 *   no longer tells that a key stood in it twice
 * @param {string | string[]} asked.worker the worker id that is believed, or several
 * @param {string} [asked.jobId]
 * @param {string | null} [asked.nonce] what was sent with the job; null: nothing
 * @param {object | null} [asked.status] the answer that the page shows
 * @param {{stdout?: Uint8Array, stderr?: Uint8Array}} [asked.logs] as /logs/ID?stream= has them
 * @param {{path?: string, download_url?: string, bytes: Uint8Array}[]} [asked.outputs]
 * @returns {Promise<{ok: boolean, steps: Step[]}>}
 */
export async function verify({ envelope, worker, jobId, nonce, status, logs = {}, outputs = [] }) {
  const steps = [];
  const step = async (name, check) => {
    try {
      const detail = await check();
      steps.push({ name, ok: true, detail });
    } catch (error) {
      if (!(error instanceof NotVerified)) throw error;
      steps.push({ name, ok: false, detail: error.message, kind: error.kind });
    }
  };
  let receipt;
  await step("signature", async () => {
    receipt = await verified(envelope, [worker].flat());
    return `The signature is by the worker ${shortened(receipt.worker)}.`;
  });
  if (!receipt) return { ok: false, steps };
  const { job } = receipt.predicate;
  if (jobId !== undefined && jobId !== null) await step("job", () => isJob(job, jobId));
  if (nonce !== undefined && nonce !== null) await step("nonce", () => hasNonce(job, nonce));
  const known = {}; // the logs that are as signed
  for (const stream of ["stdout", "stderr"]) {
    if (!logs[stream]) {
      steps.push({ name: stream, ok: null, detail: `${stream} was not compared.` });
      continue;
    }
    await step(stream, async () => {
      await compare(stream, receipt.logs.get(stream), logs[stream]);
      known[stream] = logs[stream];
      return `${stream} is as signed: ${bytesIn(receipt.logs.get(stream).size)}.`;
    });
  }
  if (status) {
    await step("answer", async () => {
      await checkAnswer(receipt, status, known);
      return "The verdict, the usage and the list of files shown here are as signed.";
    });
  }
  const left = new Set(receipt.outputs.keys());
  for (const output of outputs) {
    await step("file", async () => {
      const path = pathOf(output, job.id), content = receipt.outputs.get(path);
      if (!content) throw differs(`${told(nameOf(output))} is not among the outputs of the receipt.`);
      left.delete(path);
      await compare(legible(path), content, output.bytes);
      return `${legible(path)} is as signed: ${bytesIn(content.size)}.`;
    });
  }
  if (left.size) {
    const count = `${left.size} of ${receipt.outputs.size} files`;
    const detail = `${count} ${left.size === 1 ? "was" : "were"} not compared: not downloaded yet.`;
    steps.push({ name: "file", ok: null, detail });
  }
  return { ok: steps.every(({ ok }) => ok !== false), steps };
}

function isJob(job, asked) {
  if (job.id === asked) return "It is about this job.";
  throw new NotVerified("job", `The receipt is about the job ${told(job.id)}, not ${told(asked)}.`);
}

function hasNonce(job, asked) {
  if (job.nonce === asked) return "It has our nonce, so it was made for this submission.";
  const found = job.nonce === null ? "no nonce" : `the nonce ${told(job.nonce)}`;
  throw new NotVerified("nonce", `The receipt has ${found}, not ${told(asked)}.`);
}

async function compare(name, { size, sha256: expected }, bytes) {
  if (bytes.length !== size) {
    throw differs(`${name} has ${bytesIn(bytes.length)}, and ${bytesIn(size)} in the receipt.`);
  }
  if ((await sha256(bytes)) !== expected) throw differs(`${name} has another content than in the receipt.`);
}

const differs = (sentence) => new NotVerified("differs", sentence);
const bytesIn = (size) => (size === 1 ? "1 byte" : `${size} bytes`);
const nameOf = ({ path, download_url: url }) => path ?? url ?? "";

/**
 * The path as it is signed: percent-encoded bytes. A download URL has it so; `path` is what names that are
 * text look like.
 */
function pathOf({ path, download_url: url }, jobId) {
  if (url === undefined) return encoded(path ?? "");
  const folder = `/download/${jobId}/`;
  const local = url.replace(/^https?:\/\/[^/]*/, ""); // as a URL: that would resolve its dots
  return local.startsWith(folder) ? local.slice(folder.length) : "";
}

const encoded = (path) => {
  if (/\p{Surrogate}/u.test(path)) return ""; // no path
  return encodeURIComponent(path).replaceAll("%2F", "/").replace(/[!'()*]/g, (sign) =>
    `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
};

/** A signed path in a sentence: as text, if all of it can be seen. */
function legible(path) {
  const name = shown(path);
  return /[\p{C}\p{Z}\\]/u.test(name.replaceAll(" ", "")) ? path : name;
}
