// Whether an answer of the server is what the receipt says, as sandrun/status.py has it: what each field
// of /status must be, and of what some answers have beside it. A field that is not here is refused:
// nothing speaks for it.

import { sha256 } from "./ed25519.js";
import { opening } from "./envelope.js";
import { NotVerified, told } from "./refusal.js";

const MIB = 2 ** 20;
const STREAMS = ["stdout", "stderr"];

/** What a server says that a file is, by its extension: another word for the name, in no receipt. */
export const MIME_TYPES = new Map(Object.entries({
  png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", bmp: "image/bmp",
  webp: "image/webp", svg: "image/svg+xml", mp4: "video/mp4", avi: "video/x-msvideo",
  mov: "video/quicktime", mkv: "video/x-matroska", webm: "video/webm", mp3: "audio/mpeg",
  wav: "audio/wav", ogg: "audio/ogg", csv: "text/csv", json: "application/json", txt: "text/plain",
  md: "text/markdown", log: "text/plain", zip: "application/zip", tar: "application/x-tar",
  gz: "application/gzip", py: "text/x-python", js: "application/javascript", cpp: "text/x-c++",
  c: "text/x-c", h: "text/x-c", pdf: "application/pdf",
}));

const differ = (where, what) => {
  throw new NotVerified("differs", `In the answer, ${where} ${what}.`);
};
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const has = (value, name) => Object.hasOwn(value, name);
const at = (name) => told(name).slice(1, -1);

/**
 * Throws NotVerified("differs") with the name of a field that is not as it must be.
 * @param {import("./envelope.js").Receipt} receipt
 * @param {object} answer
 * @param {{stdout?: Uint8Array, stderr?: Uint8Array}} raw the logs' bytes, where they are known and right
 */
export async function checkAnswer(receipt, answer, raw) {
  const rest = { ...answer };
  const take = (name) => {
    const value = rest[name];
    delete rest[name];
    return value;
  };
  // Null in a message that it is too long for, which may lack outputs too.
  if (has(rest, "receipt") && (rest.receipt !== null || !has(rest, "outputs_complete"))) {
    checkEnvelope(receipt, rest.receipt);
  }
  take("receipt");
  // It is nobody's but the owner's, and in no receipt.
  if (has(rest, "owner_token") && typeof take("owner_token") !== "string") {
    differ("owner_token", "is not text");
  }
  if (has(rest, "logs")) await checkLogs(receipt, take("logs"), raw);
  if (!has(rest, "output_files") && !has(rest, "outputs")) differ("output_files", "is missing");
  if (has(rest, "output_files")) checkFiles(receipt, take("output_files"));
  if (has(rest, "outputs")) {
    const complete = has(rest, "outputs_complete") ? take("outputs_complete") : true;
    checkOutputs(receipt, take("outputs"), complete);
  }
  if (has(rest, "total_files")) compare("total_files", take("total_files"), receipt.outputs.size);
  compare("", rest, statusOf(receipt));
}

/** /status, but for what names the files. */
function statusOf({ worker, signature, predicate }) {
  const { job, verdict, usage, walls } = predicate;
  const cpu = usage.cpu_usec / 1e6, peak = usage.memory_peak_bytes, wall = usage.wall_usec;
  const missing = isObject(walls) && has(walls, "missing") ? walls.missing : null;
  return {
    job_id: job.id,
    status: verdict.status,
    queue_position: 0,
    execution_metadata: {
      cpu_seconds: cpu,
      memory_peak_bytes: peak,
      memory_peak_mb: Math.floor(peak / MIB),
      wall_time_ms: rounded(wall / 1000),
      exit_code: verdict.exit_code ?? -1,
      environment: predicate.environment,
      interpreter: predicate.interpreter.name,
    },
    job_hash: predicate.input.sha256,
    worker_metadata: { worker_id: worker, signature },
    metrics: { cpu_seconds: cpu, memory_mb: Math.floor(peak / MIB), wall_seconds: wall / 1e6 },
    cpu_seconds: cpu,
    memory_bytes: peak,
    wall_time: rounded(wall / 1000),
    reason: verdict.reason,
    signal: verdict.signal,
    stage: verdict.stage,
    limits_hit: verdict.limits_hit,
    ...(verdict.error !== null && { error: verdict.error }),
    ...(isTrue(missing) && { walls_missing: missing }),
    warnings: predicate.warnings,
    created_at: instant(job.created),
    expires_at: instant(job.expires),
  };
}

/** As Python sees it: what is empty is not. */
const isTrue = (value) =>
  value !== null && typeof value === "object" ? Object.keys(value).length > 0 : Boolean(value);

/** RFC 3339 in UTC, to the second. */
const instant = (seconds) => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");

/** To the next whole number, from the middle to the even one, as Python does. */
function rounded(number) {
  const below = Math.floor(number), rest = number - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

function checkEnvelope(receipt, envelope) {
  let found;
  try {
    found = opening(envelope);
  } catch {
    differ("receipt", "is none");
  }
  const isSame = found.payload.length === receipt.payload.length &&
    found.payload.every((byte, index) => byte === receipt.payload[index]);
  if (!isSame || !found.signatures.some(({ text }) => text === receipt.signature)) {
    differ("receipt", "is another one");
  }
}

async function checkLogs(receipt, found, raw) {
  const { logs } = receipt.predicate;
  const expected = { truncated: STREAMS.some((stream) => logs[stream].dropped > 0) };
  for (const stream of STREAMS) {
    expected[`${stream}_bytes`] = logs[stream].bytes;
    expected[`${stream}_dropped_bytes`] = logs[stream].dropped;
    const text = isObject(found) && has(found, stream) ? found[stream] : null;
    if (typeof text === "string") {
      await checkText(`logs.${stream}`, text, receipt.logs.get(stream), raw[stream]);
    }
    expected[stream] = typeof text === "string" ? text : "";
  }
  compare("logs", found, expected);
}

async function checkText(where, text, kept, raw) {
  if (raw) {
    const shown = new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw);
    if (shown !== text) differ(where, "is not the text of these bytes");
    return;
  }
  const bytes = new TextEncoder().encode(text);
  if (bytes.length === kept.size && (await sha256(bytes)) === kept.sha256) return;
  if (text.includes("\ufffd")) { // stands for bytes that were no UTF-8; which ones is lost
    differ(where, "cannot be compared, since what was printed is no UTF-8: its bytes can");
  }
  differ(where, "is not what was printed");
}

function checkFiles(receipt, found) {
  const expected = new Map();
  for (const [path, { size, sha256, type }] of receipt.outputs) {
    const name = shown(path);
    expected.set(name, [...(expected.get(name) ?? []), { size_bytes: size, sha256, type }]);
  }
  if (!isObject(found)) differ("output_files", "is not an object");
  for (const [name, entry] of Object.entries(found)) {
    const where = `output_files[${told(name)}]`;
    const known = expected.get(name) ?? differ(where, "is not among the receipt's outputs");
    // Two paths that are shown alike have one place in the object, and it is either's.
    if (!known.some((one) => isSame(entry, one))) compare(where, entry, known.at(-1));
  }
  for (const name of expected.keys()) {
    if (!has(found, name)) differ(`output_files[${told(name)}]`, "is missing");
  }
}

function checkOutputs(receipt, found, complete) {
  if (!Array.isArray(found)) differ("outputs", "is not a list");
  if (typeof complete !== "boolean") differ("outputs_complete", "is not true or false");
  const folder = `/download/${receipt.predicate.job.id}/`;
  const expected = new Map(receipt.outputs);
  found.forEach((entry, index) => {
    const url = isObject(entry) && typeof entry.download_url === "string" ? entry.download_url : "";
    const path = url.startsWith(folder) ? url.slice(folder.length) : "";
    const content = expected.get(path) ??
      differ(`outputs[${index}]`, "is not in the receipt, or is there twice");
    expected.delete(path);
    compare(`outputs[${index}]`, entry, { ...entryOf(path, content), download_url: url });
  });
  if (complete && expected.size) differ("outputs", `lacks ${expected.size} of the receipt's outputs`);
  if (!complete && !expected.size) differ("outputs_complete", "is false, and all outputs are there");
}

function entryOf(path, { size, sha256, type }) {
  const name = shown(path);
  const base = name.slice(name.lastIndexOf("/") + 1);
  const extension = base.includes(".") ? base.slice(base.lastIndexOf(".") + 1).toLowerCase() : "";
  return {
    name, path: name, size, size_bytes: size, size_formatted: formatted(size), type,
    mime_type: MIME_TYPES.get(extension) ?? "application/octet-stream", sha256,
  };
}

/** A path of a receipt as the server writes it into JSON; two paths may be shown alike. */
export function shown(path) {
  return path.replace(/(?:%[0-9A-F]{2})+/g, (escapes) => {
    const bytes = Uint8Array.from(escapes.slice(1).split("%"), (digits) => parseInt(digits, 16));
    let text = "";
    for (let start = 0; start < bytes.length;) {
      const [letter, size] = letterAt(bytes, start);
      text += letter;
      start += size;
    }
    return text;
  });
}

/** The character of UTF-8 that begins there, or the byte as an escape; and its length. */
function letterAt(bytes, start) {
  const first = bytes[start];
  const size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return [decoder.decode(bytes.subarray(start, start + size)), size];
  } catch {
    return [`\\x${first.toString(16).padStart(2, "0")}`, 1];
  }
}

/** As the server writes sizes, which is as Python does. */
export function formatted(size) {
  if (size < 1024) return `${size} B`;
  const units = ["KB", "MB", "GB"];
  let number = size / 1024;
  while (number >= 1024 && units.length > 1) {
    number /= 1024;
    units.shift();
  }
  const isMiddle = (number * 10) % 1 === 0.5; // of which toFixed takes the upper end
  return `${isMiddle ? (rounded(number * 10) / 10).toFixed(1) : number.toFixed(1)} ${units[0]}`;
}

/** That both are the same JSON. */
function compare(where, found, expected) {
  if (isObject(expected) && isObject(found)) {
    const inner = (name) => `${where && `${where}.`}${at(name)}`;
    for (const name of Object.keys(found)) {
      if (!has(expected, name)) differ(inner(name), "is nothing that the receipt speaks of");
    }
    for (const name of Object.keys(expected)) {
      if (!has(found, name)) differ(inner(name), "is missing");
      compare(inner(name), found[name], expected[name]);
    }
  } else if (Array.isArray(expected) && Array.isArray(found)) {
    if (found.length !== expected.length) {
      differ(where, `has ${found.length} entries, and ${expected.length} in the receipt`);
    }
    found.forEach((one, index) => compare(`${where}[${index}]`, one, expected[index]));
  } else if (found !== expected) {
    differ(where, `is ${told(found)}, and ${told(expected)} in the receipt`);
  }
}

function isSame(found, expected) {
  try {
    compare("", found, expected);
  } catch {
    return false;
  }
  return true;
}
