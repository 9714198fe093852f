// The files of a job: which of a dropped or chosen folder are sent, as sandrun/project.py has it, and what
// the server will make of them. Left out is what .gitignore and .sandrunignore name, what nobody means to
// send, and what looks like a secret: the server may be a stranger's.

import { rules, says } from "./ignoring.js";
import { faultOf, faultOfPaths, quoted } from "./paths.js";
import { fromJson, Malformed } from "./receipt/strict.js";

export { faultOf } from "./paths.js";

/**
 * @typedef {{path: string, data: File | Blob | string, size: number}} ProjectFile
 * @typedef {{path: string, why: "ignored" | "secret" | "name" | "unreadable", detail: string}} Skipped a
 *   folder's path ends with "/"; `detail` is a sentence
 * @typedef {{files: ProjectFile[], skipped: Skipped[]}} Found
 */

const IGNORE_FILES = [".gitignore", ".sandrunignore"];
/** The lists of sandrun/project.py; a test compares them. */
export const NEVER = [
  ".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", "__pycache__/", "*.pyc", ".tox/",
  ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
];
export const SECRET = [ // in whatever case
  ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*",
  "id_ed25519*", ".aws/", ".ssh/", ".gnupg/", ".netrc", ".npmrc", ".pypirc", ".git-credentials",
  "credentials.json", "**/.docker/config.json", "**/.kube/config", ".envrc", "*.env", ".pgpass",
  ".htpasswd", "*.jks", "*.keystore", "*.ppk", "*.kdbx", "*.tfstate", ".azure/",
  "**/.config/gcloud/", ".vault-token", "**/.streamlit/secrets.toml",
];
const NEVER_RULES = rules(NEVER), SECRET_RULES = rules(SECRET);

const FILES = 10_000; // that an archive may have
const MANIFEST_BYTES = 256 * 1024;

/**
 * What was dropped: files, folders or both. To be called while the event is handled; later the browser
 * has taken it away.
 * @param {DataTransfer} dataTransfer
 * @returns {Promise<Found>}
 */
export async function fromDrop(dataTransfer) {
  const entries = [...dataTransfer.items]
    .filter(({ kind }) => kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile())
    .filter(Boolean)
    .map((one) => (one instanceof File ? nodeOfFile(one) : nodeOfEntry(one)));
  return collect(entries.length === 1 && entries[0].isFolder ? entries[0] : folderOf("", entries));
}

/**
 * What was chosen: files, or the files of a folder.
 * @param {Iterable<File>} fileList
 * @returns {Promise<Found>}
 */
export async function fromInput(fileList) {
  const top = new Map();
  let isFolder = false;
  for (const file of fileList) {
    const parts = (file.webkitRelativePath || file.name).split("/");
    if (file.webkitRelativePath) { // begins with the name of the folder that was chosen
      parts.shift();
      isFolder = true;
    }
    let folder = top;
    for (const part of parts.slice(0, -1)) {
      if (!(folder.get(part) instanceof Map)) folder.set(part, new Map());
      folder = folder.get(part);
    }
    folder.set(parts.at(-1), file);
  }
  return collect(nodeOfMap(isFolder ? "." : "", top));
}

// ---- a tree of what is there: {name, isFolder, list() → nodes, file() → File}

const folderOf = (name, nodes) => ({ name, isFolder: true, list: async () => nodes });
const nodeOfFile = (file) =>
  ({ name: file.name, isFolder: false, list: async () => [], file: async () => file });

function nodeOfMap(name, map) {
  const nodes = [...map].map(([inner, value]) =>
    value instanceof Map ? nodeOfMap(inner, value) : { ...nodeOfFile(value), name: inner });
  return folderOf(name, nodes);
}

function nodeOfEntry(entry) {
  return {
    name: entry.name,
    isFolder: entry.isDirectory,
    list: async () => (await entriesOf(entry)).map(nodeOfEntry),
    file: () => new Promise((resolve, reject) => entry.file(resolve, reject)),
  };
}

/** All entries of a folder, which come a hundred at a time. */
async function entriesOf(folder) {
  const reader = folder.createReader(), all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return all;
    all.push(...some);
  }
}

/** What of the folder `top` is sent. */
async function collect(top) {
  const found = { files: [], skipped: [] };
  await walk(top, "", [], found);
  return found;
}

/** `given`: the rules of the folders above, each with the folder that they are in. */
async function walk(folder, below, given, found) {
  let nodes;
  try {
    nodes = await folder.list();
  } catch {
    skip(found, below, "unreadable", `The browser cannot read ${quoted(below || folder.name)}.`);
    return;
  }
  const inner = [...given, ...await rulesIn(nodes, below)];
  nodes.sort((one, other) => (one.name < other.name ? -1 : 1));
  for (const node of nodes) {
    const path = below + node.name, shown = node.isFolder ? `${path}/` : path;
    const why = reasonToSkip(path, node.isFolder, inner);
    if (why) skip(found, shown, why, SENTENCES[why](quoted(shown)));
    else if (node.isFolder) await walk(node, `${path}/`, inner, found);
    else await take(node, path, found);
  }
}

const SENTENCES = {
  ignored: (name) => `${name} is left out: it is ignored.`,
  secret: (name) => `${name} is not sent: it looks like a secret.`,
};

const skip = (found, path, why, detail) => found.skipped.push({ path, why, detail });

async function take(node, path, found) {
  const fault = faultOf(path);
  if (fault) {
    skip(found, path, "name", fault);
    return;
  }
  try {
    const data = await node.file();
    found.files.push({ path, data, size: data.size });
  } catch {
    skip(found, path, "unreadable", `The browser cannot read ${quoted(path)}.`);
  }
}

function reasonToSkip(path, isFolder, given) {
  let isBroughtBack = false;
  for (const { folder, isOurs, lines } of [...given].reverse()) {
    const said = says(lines, path.slice(folder.length), isFolder);
    if (said === null) continue;
    if (said) return "ignored";
    isBroughtBack = isOurs;
    break;
  }
  if (isBroughtBack) return null;
  if (says(NEVER_RULES, path, isFolder)) return "ignored";
  return says(SECRET_RULES, path.toLowerCase(), isFolder) ? "secret" : null;
}

async function rulesIn(nodes, folder) {
  const found = [];
  for (const name of IGNORE_FILES) {
    const node = nodes.find((one) => one.name === name && !one.isFolder);
    if (!node) continue;
    const text = await (await node.file()).text(); // without a byte order mark
    found.push({ folder, isOurs: name === ".sandrunignore", lines: rules(text.split("\n")) });
  }
  return found;
}

// ---- what is told of them

/** @param {ProjectFile[]} files */
export const sizeOf = (files) => files.reduce((all, { size }) => all + size, 0);

/**
 * The n largest, the largest first.
 * @param {ProjectFile[]} files
 */
export const largest = (files, n = 5) => [...files].sort((one, other) => other.size - one.size).slice(0, n);

/**
 * Why the server would not take these files, as a sentence; "" when it would.
 * @param {ProjectFile[]} files
 * @param {number} uploadBytes its limit: `limits_detail.upload_bytes` of GET /
 */
export function faultOfFiles(files, uploadBytes) {
  if (!files.length) return "There is no file to send.";
  if (files.length > FILES) return `${files.length} files are over the limit of ${FILES} files.`;
  const size = sizeOf(files);
  if (size > uploadBytes) return `${megabytes(size)} is over the ${megabytes(uploadBytes)} limit.`;
  return faultOfPaths(files.map(({ path }) => path));
}

const megabytes = (bytes) =>
  bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} kB` : `${(bytes / 2 ** 20).toFixed(1).replace(".0", "")} MB`;

/**
 * The file that is run when the manifest names none, as jobs/manifest.py finds it; null: the server would
 * have to be told.
 * @param {{path: string}[]} files
 * @param {string} interpreter a name or alias; "": the file tells it
 * @param {Record<string, {extensions: string[], aliases: string[], entrypoint: string}>} interpreters as
 *   GET / has them
 * @returns {string | null}
 */
export function entrypointOf(files, interpreter, interpreters) {
  const paths = files.map(({ path }) => path);
  const usual = Object.values(interpreters).map(({ entrypoint }) => entrypoint).filter(Boolean);
  const named = Object.entries(interpreters).find(
    ([name, { aliases }]) => name === interpreter || aliases.includes(interpreter),
  );
  const looked = named ? [named[1].entrypoint]
    : usual.includes("main.py") ? ["main.py", ...usual] : usual;
  const found = looked.find((name) => name && paths.includes(name));
  return found ?? (paths.length === 1 ? paths[0] : null);
}

/**
 * What runs a file by its extension; null: nothing that this server has.
 * @param {string} path
 * @param {Record<string, {extensions: string[]}>} interpreters
 * @returns {string | null}
 */
export function interpreterOf(path, interpreters) {
  const found = Object.entries(interpreters).find(([, { extensions }]) =>
    extensions.some((extension) => path.toLowerCase().endsWith(extension)));
  return found ? found[0] : null;
}

const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.every(isText);
const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isWhole = Number.isInteger;
const KEYS = {
  entrypoint: ["text", isText], interpreter: ["text", isText], stdin: ["text", isText],
  environment: ["text", (value) => value === null || isText(value)], nonce: ["text", isText],
  args: ["a list of texts", isTexts], outputs: ["a list of texts", isTexts],
  env: ["an object of texts", (value) => isTable(value) && Object.values(value).every(isText)],
  timeout: ["a whole number", isWhole], memory_mb: ["a whole number", isWhole],
  ttl: ["a whole number", isWhole], cpu_seconds: ["a number", (value) => typeof value === "number"],
  stdin_live: ["true or false", (value) => typeof value === "boolean"],
  burn_after_read: ["true or false", (value) => typeof value === "boolean"],
};

/**
 * The job.json at the top of the files, by which the server goes when nothing else is said: null when
 * there is none. `fault` is a sentence, else "".
 * @param {ProjectFile[]} files
 * @returns {Promise<{manifest: Record<string, any>, fault: string} | null>}
 */
export async function jobOf(files) {
  const file = files.find(({ path }) => path === "job.json");
  if (!file) return null;
  const wrong = (fault) => ({ manifest: {}, fault: `job.json ${fault}.` });
  if (file.size > MANIFEST_BYTES) return wrong(`is larger than ${MANIFEST_BYTES / 1024} KiB`);
  let manifest;
  try {
    const bytes = isText(file.data) ? file.data : new Uint8Array(await file.data.arrayBuffer());
    manifest = fromJson(bytes, { decimals: true });
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return wrong(error.message);
  }
  if (!isTable(manifest)) return wrong("is not a JSON object");
  for (const [name, [what, fits]] of Object.entries(KEYS)) {
    if (Object.hasOwn(manifest, name) && !fits(manifest[name])) {
      return wrong(`is not right: ${name} must be ${what}`);
    }
  }
  return { manifest, fault: "" };
}
