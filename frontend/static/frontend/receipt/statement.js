// What a receipt of version 1 says, field by field, as sandrun/statement.py has it: which fields there
// must be, and of what form. Fields that it does not know are let be.

import { told } from "./refusal.js";
import { fromBase64, Malformed } from "./strict.js";

// In parts, since nothing on the page is an address of somebody else; this one is only a name.
const TYPE = ["https:", "", "in-toto.io", "Statement", "v1"].join("/");
const PREDICATE_TYPE = "urn:sandrun:receipt:v1";
const LOGS = ["stdout", "stderr"];
const YEAR_10000 = 253402300800; // in UNIX seconds; calendars end there

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

// Each check takes a value and the name of its field.
const must = (holds, where, what) => {
  if (!holds) throw new Malformed(`is not right: ${where} is not ${what}`);
};
const text = (value, where) => must(typeof value === "string", where, "text");
const truth = (value, where) => must(typeof value === "boolean", where, "true or false");
const object = (value, where) => must(isObject(value), where, "an object");
const count = (value, where) => must(isCount(value), where, "a whole number from 0 to 2**53 - 1");
const time = (value, where) =>
  must(isCount(value) && value < YEAR_10000, where, "a time in UNIX seconds");
const matches = (pattern, what) => (value, where) =>
  must(typeof value === "string" && pattern.test(value), where, what);
const oneOf = (...words) => (value, where) =>
  must(words.includes(value), where, `one of ${words.join(", ")}`);
const orNull = (check) => (value, where) => value === null || check(value, where);
const each = (check) => (value, where) => {
  must(Array.isArray(value), where, "a list");
  value.forEach((item, index) => check(item, `${where}[${index}]`));
};
const fields = (checks) => (value, where) => {
  object(value, where || "it");
  for (const [name, check] of Object.entries(checks)) {
    const inner = where ? `${where}.${name}` : name;
    if (!Object.hasOwn(value, name)) throw new Malformed(`is not right: ${inner} is missing`);
    check(value[name], inner);
  }
};

const sha256 = matches(/^[0-9a-f]{64}$/, "a SHA-256 in lower-case hex");
const counts = (...names) => fields(Object.fromEntries(names.map((name) => [name, count])));
const checkAll = fields({
  _type: oneOf(TYPE),
  predicateType: oneOf(PREDICATE_TYPE),
  subject: each(fields({ name: text, digest: fields({ sha256 }), annotations: object })),
  predicate: fields({
    worker: matches(/^[A-Za-z0-9+/]{43}=$/, "a worker id"),
    job: fields({
      id: matches(/^[!-~]+$/, "a job id"),
      nonce: orNull(matches(/^[ -~]{1,128}$/, "1 to 128 printable ASCII characters")),
      created: time, started: orNull(time), ended: time, expires: time,
    }),
    input: fields({ sha256, stdin: orNull(fields({ bytes: count, sha256 })) }),
    environment: text,
    interpreter: fields({ name: text, version: text }),
    limits: counts(
      "cpu_millis", "cpu_usec", "descriptors", "disk_bytes", "inodes", "log_bytes", "memory_bytes",
      "tasks", "wall_usec",
    ),
    walls: orNull(object),
    verdict: fields({
      status: oneOf("completed", "failed"), reason: orNull(text), exit_code: orNull(count),
      signal: orNull(count), stage: orNull(oneOf("compile", "run")), limits_hit: each(text),
      error: orNull(text),
    }),
    usage: counts("cpu_usec", "memory_peak_bytes", "wall_usec"),
    logs: fields({ stdout: counts("bytes", "dropped"), stderr: counts("bytes", "dropped") }),
    outputs: fields({ bytes: count, files: count, truncated: truth }),
    warnings: each(text),
  }),
});
const checkLog = counts("bytes");
const checkOutput = fields({ bytes: count, mode: matches(/^[0-7]{4}$/, "four octal digits"), type: text });

/**
 * A log or a file that was signed.
 * @typedef {{size: number, sha256: string, type?: string}} Content
 * @typedef {{worker: string, predicate: object, logs: Map<string, Content>,
 *   outputs: Map<string, Content>}} Said `outputs` by their paths, percent-encoded
 */

/**
 * What the statement says, whose fields are all there and agree with each other. Throws Malformed.
 * @param {any} statement
 * @returns {Said}
 */
export function read(statement) {
  checkAll(statement, "");
  const logs = new Map(), outputs = new Map();
  for (const { name, digest, annotations } of statement.subject) {
    const where = `subject ${told(name)}`;
    const stream = LOGS.find((log) => name === `logs/${log}`);
    (stream ? checkLog : checkOutput)(annotations, `${where}: annotations`);
    const key = stream ?? pathIn(name, where), found = stream ? logs : outputs;
    must(!found.has(key), where, "there once");
    found.set(key, { size: annotations.bytes, sha256: digest.sha256, type: annotations.type });
  }
  const { predicate } = statement;
  for (const stream of LOGS) {
    must(logs.has(stream), `logs/${stream}`, "among the subjects");
    const { bytes, dropped } = predicate.logs[stream];
    must(bytes === logs.get(stream).size + dropped, `logs.${stream}`, "what its subject says");
  }
  const sum = [...outputs.values()].reduce((all, { size }) => all + size, 0);
  must(predicate.outputs.files === outputs.size, "outputs.files", "the number of the outputs");
  must(predicate.outputs.bytes === sum, "outputs.bytes", "the sum of the outputs");
  fromBase64(predicate.worker);
  return { worker: predicate.worker, predicate, logs, outputs };
}

/** The path of an output, percent-encoded: names are bytes, and each path has one such text. */
function pathIn(name, where) {
  must(name.startsWith("outputs/"), where, "a log or an output");
  const path = name.slice("outputs/".length);
  const isEncoded = /^(?:[A-Za-z0-9_.\-~/]|%[0-9A-F]{2})*$/.test(path);
  const escapes = path.match(/%../g) ?? [];
  const areNeeded = !escapes.some((one) => /[A-Za-z0-9_.\-~/]/.test(decodeByte(one)));
  must(isEncoded && areNeeded, where, "the percent-encoded name of a path");
  const isInside = !path.split("/").some((part) => ["", ".", ".."].includes(part));
  must(isInside && !escapes.includes("%00"), where, "the name of a file within the job's folder");
  return path;
}

const decodeByte = (escape) => String.fromCharCode(parseInt(escape.slice(1), 16));
