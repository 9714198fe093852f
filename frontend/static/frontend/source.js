// What is to be run: files, the one that starts, its words, what it reads, its limits. It lives in this
// tab: a reload keeps it, closing the tab is the end of it.

import { examples, hello } from "./examples.js";
import { entrypointOf, interpreterOf, jobOf } from "./project.js";
import { decode } from "./share.js";
import { quote, split } from "./shell.js";
import { batch, computed, signal } from "./vendor/preact.js";

const DRAFT = "draft";
const DRAFT_CHARS = 1_000_000; // what a tab's storage surely takes
const EDITABLE_BYTES = 512 * 1024;

/** @param {object} info the server's own words (GET /) */
export function createSource(info) {
  const languages = info.interpreters;
  const language = signal("");
  const files = signal([]); // {path, text} or, where it is no text, {path, blob}
  const active = signal(0);
  const entrypoint = signal(""); // of several files
  const args = signal("");
  const stdin = signal("");
  const limits = signal({ timeout: "", memory_mb: "" });
  const more = signal({}); // of a job.json: what the page has no field for
  const drafts = {}; // by language, of a single file
  const shownLine = signal(null); // {index, line}: where the editor is to go

  const words = computed(() => split(args.value));
  const current = computed(() => files.value[active.value] ?? null);
  const bytes = computed(() => files.value.reduce((sum, file) => sum + sizeOf(file), 0));
  const isProject = computed(() => files.value.length > 1);

  const nameIn = (name) => {
    const { entrypoint: fixed, extensions } = languages[name] ?? { extensions: [] };
    return fixed || `main${extensions[0] ?? ".txt"}`;
  };
  const languageOf = (path) => interpreterOf(path, languages);

  function setText(index, text) {
    if (files.value[index]?.text === text) return;
    files.value = files.value.map((file, at) => (at === index ? { path: file.path, text } : file));
  }

  function setLanguage(name) {
    if (!isProject.value && current.value?.text !== undefined) {
      if (language.value) drafts[language.value] = current.value.text;
      files.value = [{ path: nameIn(name), text: drafts[name] ?? hello(name) }];
      active.value = 0;
    }
    language.value = name;
  }

  /** A whole project in place of what was there; its job.json says how it is run. */
  async function setFiles(found) {
    const read = await Promise.all(found.map(({ path, data }) => asFile(path, data)));
    const job = await jobOf(found);
    if (job?.fault) throw new Error(job.fault);
    const { entrypoint: named, interpreter, args: argv, stdin: given, timeout = "", memory_mb = "", ...rest }
      = job?.manifest ?? {};
    const start = named ?? entrypointOf(read, "", languages) ?? read[0].path;
    batch(() => {
      files.value = read;
      active.value = Math.max(0, read.findIndex(({ path }) => path === start));
      entrypoint.value = start;
      language.value = [interpreter, languageOf(start)].find((name) => name in languages) ?? language.value;
      if (argv) args.value = quote(argv);
      if (given !== undefined) stdin.value = given;
      limits.value = { timeout, memory_mb };
      more.value = rest;
    });
  }

  async function addFile(path, data) {
    const file = await asFile(path, data);
    const at = files.value.findIndex((other) => other.path === path);
    if (at < 0) {
      if (!isProject.value) entrypoint.value = current.value?.path ?? path;
      files.value = [...files.value, file];
      active.value = files.value.length - 1;
    } else {
      files.value = files.value.map((other, index) => (index === at ? file : other));
      active.value = at;
    }
  }

  function removeFile(index) {
    files.value = files.value.filter((_, at) => at !== index);
    if (active.value >= index) active.value = Math.max(0, active.value - 1);
    if (!files.value.some(({ path }) => path === entrypoint.value)) entrypoint.value = "";
    if (files.value.length === 0) setLanguage(language.value || Object.keys(languages)[0]);
    if (files.value.length === 0) files.value = [{ path: nameIn(language.value), text: "" }];
  }

  function renameFile(index, path) {
    const old = files.value[index].path;
    files.value = files.value.map((file, at) => (at === index ? { ...file, path } : file));
    if (entrypoint.value === old) entrypoint.value = path;
  }

  async function showExample(name) {
    const { language: kind, files: names } = examples[name];
    const texts = await Promise.all(names.map(async (path) => {
      const response = await fetch(new URL(`./examples/${path}`, import.meta.url));
      if (!response.ok) throw new Error(`The example ${path} could not be loaded.`);
      return { path: path.replace(/^[^/]*\//, ""), text: await response.text() };
    }));
    if (!isProject.value && language.value) drafts[language.value] = current.value?.text;
    more.value = {};
    language.value = kind;
    files.value = names.length === 1 ? [{ path: nameIn(kind), text: texts[0].text }] : texts;
    active.value = 0;
    entrypoint.value = names.length === 1 ? "" : texts[0].path;
    args.value = examples[name].args ?? "";
    stdin.value = examples[name].stdin ?? "";
  }

  /** What /submit is to be told. Throws Error with a sentence. */
  function manifest() {
    if (words.value.error) throw new Error(`Arguments: ${words.value.error}`);
    const told = { ...more.value, interpreter: language.value };
    const start = isProject.value ? entrypoint.value : current.value?.path;
    if (start) told.entrypoint = start;
    if (words.value.words.length) told.args = words.value.words;
    if (stdin.value) told.stdin = stdin.value;
    for (const name of ["timeout", "memory_mb"]) {
      if (limits.value[name] !== "") told[name] = Number(limits.value[name]);
    }
    return told;
  }

  function save() {
    const text = JSON.stringify({
      language: language.value, args: args.value, stdin: stdin.value, entrypoint: entrypoint.value,
      limits: limits.value, more: more.value, active: active.value,
      files: files.value.filter((file) => file.text !== undefined),
    });
    try {
      if (text.length <= DRAFT_CHARS) sessionStorage.setItem(DRAFT, text);
    } catch { /* without storage a reload begins anew */ }
  }

  /** Begins with the code in the address, else with this tab's draft, else with an example. */
  async function begin(fragment) {
    const shared = fragment.startsWith("#code=") ? await decode(fragment) : null;
    const draft = shared ?? draftOf();
    if (!draft?.files?.length) {
      const first = "python3" in languages ? "python3" : Object.keys(languages)[0];
      if (first === "python3") await showExample("plot");
      else setLanguage(first);
      return;
    }
    const kind = draft.interpreter ?? draft.language;
    language.value = kind in languages ? kind : (languageOf(draft.files[0].path) ?? Object.keys(languages)[0]);
    files.value = draft.files.map(({ path, text }) => ({ path, text }));
    active.value = Math.min(draft.active ?? 0, files.value.length - 1);
    args.value = Array.isArray(draft.args) ? quote(draft.args) : (draft.args ?? "");
    stdin.value = draft.stdin ?? "";
    entrypoint.value = draft.entrypoint ?? (files.value.length > 1 ? files.value[0].path : "");
    more.value = draft.more ?? {};
    if (draft.limits) limits.value = { ...limits.value, ...draft.limits };
  }

  return {
    language, files, active, entrypoint, args, stdin, limits, words, current, bytes, isProject, shownLine,
    setText, setLanguage, setFiles, addFile, removeFile, renameFile, showExample, manifest, save, begin,
    languageOf,
  };
}

export function sizeOf({ text, blob }) {
  return blob ? blob.size : new Blob([text]).size;
}

async function asFile(path, data) {
  if (typeof data === "string") return { path, text: data };
  const blob = data instanceof Blob ? data : new Blob([data]);
  if (blob.size > EDITABLE_BYTES) return { path, blob };
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await blob.arrayBuffer());
    return text.includes("\0") ? { path, blob } : { path, text };
  } catch {
    return { path, blob };
  }
}

function draftOf() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT));
  } catch {
    return null;
  }
}
