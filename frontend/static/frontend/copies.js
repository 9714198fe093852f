// The same job as commands to paste: curl, the command line and Python. What was typed here, or came in a
// link of somebody else's, must be nothing but words there: nothing in it ends a quote, a heredoc or a paste.

import { isPlain } from "./paths.js";
import { quote } from "./shell.js";

const USUAL = /^(?:main|Main|index)(?:\.\w+)?$/; // names that the server itself gives to code
const ARCHIVE = /\.(?:tar\.gz|tgz|tar|zip)$/i;
const LONGEST_URL = 8000; // a server takes 16 KiB
const MOST_NAMED = 20; // files that are named one by one
const CONTROL = /[^\P{Cc}\n\t]/u; // a terminal obeys them, also in what is pasted
const UNSEEN = /[^\P{C}\n]/u;

/**
 * Commands that run this job. Where it has one file that is text, they have it in them; else they are to
 * be run in the folder of the files.
 * @param {object} job
 * @param {string} job.server its origin
 * @param {Record<string, any>} job.manifest as it is sent; a nonce belongs to one submission, and stays out
 * @param {{path: string, text: string | null, size: number}[]} job.files
 * @returns {{curl: string, cli: string, python: string}}
 */
export function copies({ server, manifest, files }) {
  const { nonce: _, stdin_live: __, ...asked } = manifest;
  const said = Object.fromEntries(Object.entries(asked).filter(([, value]) => isSaid(value)));
  const [{ path, text }] = files;
  const code = files.length === 1 && text && !CONTROL.test(text) ? text : null;
  if (files.length === 1) said.entrypoint ??= path;
  const job = { server: server.replace(/\/+$/, ""), said, files, code };
  return { curl: curlOf(job), cli: cliOf(job), python: pythonOf(job) };
}

const isSaid = (value) =>
  value !== null && value !== undefined && value !== "" &&
  (typeof value !== "object" || Object.keys(value).length > 0);

// ---- curl

function curlOf({ server, said, files, code }) {
  const url = code === null ? null : runAddress(server, said);
  if (url) return heredoc(line(["curl", "-sSN", "--data-binary", "@-", url]), code);
  const submit = ["--form-string", `manifest=${JSON.stringify(said)}`, `${server}/submit?wait=60`];
  if (code !== null) {
    const file = `files=@-;filename=${formName(files[0].path)}`;
    return heredoc(line(["curl", "-sS", "-F", file, ...submit]), code);
  }
  const paths = files.map(({ path }) => path);
  if (areLoose(files) && !paths.some((path) => path.includes('"'))) { // of which curl makes %22
    return line(["curl", "-sS", ...paths.flatMap((path) => ["-F", formFile(path)]), ...submit]);
  }
  const tar = line(["tar", "-czf", "-", ...paths.map(local)]);
  return `${tar} |\n  ${line(["curl", "-sS", "-F", "files=@-;filename=job.tar.gz", ...submit])}`;
}

/** The URL whose query says all of it; null: there is none. */
function runAddress(server, { entrypoint, ...said }) {
  if (!said.interpreter || said.env || !USUAL.test(entrypoint)) return null;
  const pairs = Object.entries(said).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const query = pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
  const url = `${server}/run?${query}`;
  return url.length > LONGEST_URL ? null : url;
}

/** A name in a form, which curl sends without its folders unless they are said. */
const formFile = (path) => {
  const from = path === "-" ? "./-" : path;
  return `files=@${formName(from)}${/[/]/.test(from) ? `;filename=${formName(path)}` : ""}`;
};

const formName = (path) =>
  (/^[\w./@%+=:-]+$/.test(path) ? path : `"${path.replace(/["\\]/g, "\\$&")}"`);

// ---- the command line

function cliOf({ server, said, files, code }) {
  const { entrypoint, interpreter } = said;
  const words = ["sandrun", "run", "--server", server];
  if (interpreter) words.push("-i", interpreter);
  const more = files.filter(({ path }) => path !== entrypoint).map(({ path }) => path);
  let target = local(entrypoint ?? ".");
  if (code !== null) target = "-";
  else if (!isNamed(files, entrypoint)) target = ".";
  else words.push(...more.flatMap((path) => ["-f", path.includes("/") ? `${path}:${path}` : local(path)]));
  if (entrypoint && (target === "." || (code !== null && entrypoint !== "main.py"))) {
    words.push(`--entrypoint=${entrypoint}`);
  }
  if (said.environment) words.push(`--environment=${said.environment}`);
  for (const [name, value] of Object.entries(said.env ?? {})) words.push(`--env=${name}=${value}`);
  for (const pattern of said.outputs ?? []) words.push(`--outputs=${pattern}`);
  if (said.timeout) words.push("-t", `${said.timeout}s`);
  if (said.memory_mb) words.push("-m", `${said.memory_mb}M`);
  if (said.cpu_seconds) words.push("--cpu", `${said.cpu_seconds}s`);
  if (said.ttl) words.push("--ttl", `${said.ttl}s`);
  words.push(target);
  let command = line(words);
  if (said.stdin) command += ` --stdin <(printf %s ${word(said.stdin)})`;
  if (said.args) command += ` -- ${said.args.map(word).join(" ")}`;
  return code === null ? command : heredoc(command, code);
}

/** Whether its options can name all files: else the whole folder is sent. */
function isNamed(files, entrypoint) {
  return areLoose(files) && !entrypoint?.includes("/") &&
    files.some(({ path }) => path === entrypoint) && !files.some(({ path }) => path.includes(":"));
}

/** Whether they can be sent one by one; a server takes more, archives and odd names in an archive only. */
const areLoose = (files) =>
  files.length <= MOST_NAMED && files.every(({ path }) => isPlain(path) && !ARCHIVE.test(path));

/** A path that no program takes for an option or another thing. */
const local = (path) => (/^[-@]/.test(path) ? `./${path}` : path);

// ---- Python

function pythonOf({ server, said, files, code }) {
  const { entrypoint, stdin, ...rest } = said;
  const lines = ["import sandrun", ""];
  const words = [];
  if (code !== null) {
    lines.push(`code = ${textBlock(code)}`, "");
    words.push("code");
  } else if (areLoose(files)) {
    lines.splice(0, 0, "from pathlib import Path", "");
    const pairs = files.map(({ path }) => `${literal(path)}: Path(${literal(path)})`);
    words.push(`files={${pairs.join(", ")}}`);
  } else {
    words.push('path="."');
  }
  words.push(`server=${literal(server)}`);
  if (entrypoint && (code === null || entrypoint !== "main.py")) {
    words.push(`entrypoint=${literal(entrypoint)}`);
  }
  if (stdin) words.push(`stdin=${literal(stdin)}`);
  for (const [name, value] of Object.entries(rest)) words.push(`${name}=${literal(value)}`);
  lines.push("result = sandrun.run(", ...words.map((one) => `    ${one},`), ")");
  return `${[...lines, 'print(result.stdout, end="")'].join("\n")}\n`;
}

function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map((pair) => pair.map(literal).join(": ")).join(", ")}}`;
  }
  return escaped(JSON.stringify(value), UNSEEN); // numbers and text are the same in both
}

/** Text over several lines, as it is; no quotes in it are three, or meet the last ones. */
function textBlock(text) {
  const quotes = (found) => found.replaceAll('"', '\\"');
  const inside = text.replaceAll("\\", "\\\\").replace(/"""|"$/g, quotes);
  return `"""\\\n${escaped(inside, UNSEEN, "\t")}"""`;
}

const escaped = (text, pattern, kept = "") =>
  text.replace(new RegExp(pattern, "gu"), (letter) => {
    if (kept.includes(letter)) return letter;
    const code = letter.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });

// ---- words of a shell

/** A word for bash; with what cannot be seen as an escape. */
function word(text) {
  if (!UNSEEN.test(text)) return quote([text]);
  const bytes = (letter) => Array.from(new TextEncoder().encode(letter));
  const inside = text.replace(/['\\]/g, "\\$&").replace(new RegExp(UNSEEN, "gu"), (letter) =>
    bytes(letter).map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join(""));
  return `$'${inside}'`;
}

/** One command, over several lines when it is long: options with their values stay together. */
function line(words) {
  const quoted = words.map(word);
  if (quoted.join(" ").length <= 100) return quoted.join(" ");
  const parts = [];
  for (const [index, one] of quoted.entries()) {
    const follows = index > 0 && (/^-/.test(words[index - 1]) ? !/=/.test(words[index - 1]) : index < 2);
    if (follows) parts[parts.length - 1] += ` ${one}`;
    else parts.push(one);
  }
  return parts.join(" \\\n  ");
}

/** The command with this text as its standard input. A heredoc ends in the end of a line. */
function heredoc(command, text) {
  const lines = new Set(text.split("\n"));
  let end = "EOF";
  for (let number = 2; lines.has(end); number += 1) end = `EOF${number}`;
  return `${command} <<'${end}'\n${text}${text.endsWith("\n") ? "" : "\n"}${end}\n`;
}
