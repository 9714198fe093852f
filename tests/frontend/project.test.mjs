// project.js alone; what it takes of real folders is compared with Python's: test_project.py.
import assert from "node:assert/strict";
import { File as NodeFile } from "node:buffer";
import test from "node:test";

globalThis.File ??= NodeFile; // of Node 18
const {
  entrypointOf, faultOf, faultOfFiles, fromDrop, fromInput, interpreterOf, jobOf, largest, sizeOf,
} = await import("../../frontend/static/frontend/project.js");

/** A FileSystemEntry as browsers have them, of a tree of texts. */
function entry(name, content) {
  if (typeof content === "string") {
    return { name, isDirectory: false, isFile: true, file: (resolve) => resolve(new File([content], name)) };
  }
  return {
    name,
    isDirectory: true,
    createReader: () => {
      const rest = Object.entries(content).map((one) => entry(...one));
      return { readEntries: (resolve) => setTimeout(() => resolve(rest.splice(0, 100))) };
    },
  };
}
const dropped = (tree) => ({
  items: [
    { kind: "string", webkitGetAsEntry: () => null, getAsFile: () => null },
    ...Object.entries(tree).map((one) => ({ kind: "file", webkitGetAsEntry: () => entry(...one) })),
  ],
});
const chosen = (texts) => Object.entries(texts).map(([path, text]) => {
  const file = new File([text], path.split("/").at(-1));
  Object.defineProperty(file, "webkitRelativePath", { value: path.includes("/") ? path : "" });
  return file;
});
const paths = ({ files }) => files.map(({ path }) => path);
const skips = ({ skipped }) => skipped.map(({ path, why }) => `${path} ${why}`);

test("a dropped folder comes without its own name, with all that is below", async () => {
  const found = await fromDrop(dropped({ top: { "b.py": "12", sub: { deep: { "a.txt": "" } } } }));
  assert.deepEqual(paths(found), ["b.py", "sub/deep/a.txt"]);
  assert.deepEqual(found.files.map(({ size }) => size), [2, 0]);
  assert.equal(await found.files[0].data.text(), "12");
  assert.deepEqual(found.skipped, []);
});

test("a folder in the folder keeps its name", async () => {
  assert.deepEqual(paths(await fromDrop(dropped({ top: { sub: { a: "" } } }))), ["sub/a"]);
  assert.deepEqual(paths(await fromInput(chosen({ "top/sub/a": "" }))), ["sub/a"]);
});

test("several things that are dropped keep their names", async () => {
  const found = await fromDrop(dropped({ one: { a: "" }, two: { a: "" }, "x.py": "" }));
  assert.deepEqual(paths(found), ["one/a", "two/a", "x.py"]);
});

test("all entries of a large folder come, not only the first hundred", async () => {
  const many = Object.fromEntries(Array.from({ length: 1234 }, (_, n) => [`f${n}`, ""]));
  assert.equal((await fromDrop(dropped({ top: many }))).files.length, 1234);
});

test("what is dropped where there are no entries is taken as files", async () => {
  const file = new File(["x"], "a.py");
  const found = await fromDrop({ items: [{ kind: "file", getAsFile: () => file }] });
  assert.deepEqual(paths(found), ["a.py"]);
});

test("what nobody means to send and what looks like a secret is left out, and said", async () => {
  const found = await fromDrop(dropped({ top: {
    ".git": { HEAD: "" }, node_modules: { x: {} }, "main.py": "", ".env": "", "server.PEM": "",
    ".ssh": { id_rsa: "" }, sub: { ".DS_Store": "", ".env.local": "", ".docker": { "config.json": "" } },
  } }));
  assert.deepEqual(paths(found), ["main.py"]);
  assert.deepEqual(skips(found), [
    ".env secret", ".git/ ignored", ".ssh/ secret", "node_modules/ ignored", "server.PEM secret",
    "sub/.DS_Store ignored", "sub/.docker/config.json secret", "sub/.env.local secret",
  ]);
  for (const { detail } of found.skipped) assert.match(detail, /^'.*\.$/);
});

test("what is ignored is not even looked into", async () => {
  const folder = { name: "node_modules", isDirectory: true, createReader: () => assert.fail("was read") };
  const top = {
    name: "top", isDirectory: true,
    createReader: () => {
      const rest = [folder, entry("a", "")];
      return { readEntries: (resolve) => resolve(rest.splice(0)) };
    },
  };
  const found = await fromDrop({ items: [{ kind: "file", webkitGetAsEntry: () => top }] });
  assert.deepEqual(paths(found), ["a"]);
});

test("what the browser cannot read is said", async () => {
  const file = { name: "a", isDirectory: false, file: (_, reject) => reject(new Error("no")) };
  const folder = {
    name: "b", isDirectory: true, createReader: () => ({ readEntries: (_, reject) => reject(new Error()) }),
  };
  const items = [file, folder].map((one) => ({ kind: "file", webkitGetAsEntry: () => one }));
  assert.deepEqual(skips(await fromDrop({ items })), ["a unreadable", "b/ unreadable"]);
});

test("names that the server would refuse are skipped", async () => {
  const found = await fromDrop(dropped({ top: { "a\\b": "", ok: "", "c:": { x: "" } } }));
  assert.deepEqual(paths(found), ["ok"]);
  assert.deepEqual(skips(found), ["a\\b name", "c:/x name"]);
  for (const path of [
    "", "/a", "a/", "a//b", "./a", "a/../b", "a\0", "\ud800", "x".repeat(256), "ü".repeat(128), "a/".repeat(64) + "a",
    `${"y".repeat(200)}/`.repeat(5) + "z".repeat(30),
  ]) {
    assert.match(faultOf(path), /^The file name '.*\.$/s, path);
  }
  for (const path of ["a", "ü".repeat(127), "...", "a b/c", "Screenshot 3.04\u202fPM.png", "-", "a".repeat(255)]) {
    assert.equal(faultOf(path), "", path);
  }
});

test("too much is said in a sentence", () => {
  const file = (path, size) => ({ path, size, data: "" });
  const files = [file("a", 2 ** 20), file("b", 3 * 2 ** 20), file("c", 5)];
  assert.equal(faultOfFiles(files, 100 * 2 ** 20), "");
  assert.equal(faultOfFiles(files, 2 ** 20), "4 MB is over the 1 MB limit.");
  assert.equal(sizeOf(files), 4 * 2 ** 20 + 5);
  assert.deepEqual(largest(files, 2).map(({ path }) => path), ["b", "a"]);
  assert.equal(faultOfFiles([], 1), "There is no file to send.");
  const many = Array.from({ length: 10_001 }, (_, n) => file(`${n}`, 0));
  assert.match(faultOfFiles(many, 1), /^10001 files are over/);
  assert.match(faultOfFiles([file("a", 1), file("a/b", 1)], 9), /both a file and a folder/);
  assert.match(faultOfFiles([file("a", 1), file("a", 1)], 9), /two files named 'a'/);
});

test("what is run is told by name, by interpreter, or by being alone", () => {
  const known = {
    node: { extensions: [".js", ".mjs"], aliases: ["nodejs"], entrypoint: "index.js" },
    python3: { extensions: [".py"], aliases: ["python"], entrypoint: "main.py" },
    sh: { extensions: [], aliases: [], entrypoint: "" },
  };
  const of = (names, interpreter = "") =>
    entrypointOf(names.map((path) => ({ path })), interpreter, known);
  assert.equal(of(["index.js", "main.py"]), "main.py");
  assert.equal(of(["index.js", "main.py"], "nodejs"), "index.js");
  assert.equal(of(["a.py", "index.js"]), "index.js");
  assert.equal(of(["a.py", "b.py"]), null);
  assert.equal(of(["a.py"]), "a.py");
  assert.equal(of(["a.py", "main.py"], "sh"), null);
  assert.equal(interpreterOf("x/A.PY", known), "python3");
  assert.equal(interpreterOf("a.mjs", known), "node");
  assert.equal(interpreterOf("a.txt", known), null);
});

test("a job.json is read, and what is wrong with it is said", async () => {
  const job = (text) => jobOf([{ path: "job.json", data: text, size: text.length }]);
  assert.equal(await jobOf([{ path: "a/job.json", data: "{}", size: 2 }]), null);
  const { manifest, fault } = await job('{"entrypoint":"a.py","cpu_seconds":1.5,"args":["x"],"new":1}');
  assert.equal(fault, "");
  assert.equal(JSON.stringify(manifest), '{"entrypoint":"a.py","cpu_seconds":1.5,"args":["x"],"new":1}');
  for (const text of ["", "{", "[]", "null", '{"a":1,"a":1}', '{"timeout":1e999}', '{"args":"x"}',
    '{"timeout":1.5}', '{"env":[]}', '{"stdin":null}', '{"burn_after_read":1}', " ".repeat(2 ** 18 + 1)]) {
    const found = await job(text);
    assert.match(found.fault, /^job\.json .*\.$/s, text.slice(0, 30));
    assert.deepEqual(found.manifest, {});
  }
  const file = { path: "job.json", data: new File(['{"ttl":5}'], "job.json"), size: 9 };
  assert.equal((await jobOf([file])).manifest.ttl, 5);
});
