import assert from "node:assert/strict";
import test from "node:test";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { Duplex } from "node:stream";
import { createInflateRaw, createDeflateRaw } from "node:zlib";
import { decode, encode } from "../../frontend/static/frontend/share.js";

// Node 18 has these streams without "deflate-raw", which every browser has.
for (const [name, create] of [["CompressionStream", createDeflateRaw], ["DecompressionStream", createInflateRaw]]) {
  try {
    new globalThis[name]("deflate-raw");
  } catch {
    globalThis[name] = class {
      constructor() { Object.assign(this, Duplex.toWeb(create())); }
    };
  }
}

const SHARED = {
  interpreter: "python3",
  files: [{ path: "main.py", text: "print('Grüße 😀')\n" }, { path: "src/Ä b.txt", text: "" }],
  args: ["--epochs", "3", "", "it's"],
  stdin: "a\nb\0",
};
const packed = (value) => {
  const bytes = typeof value === "string" ? Buffer.from(value) : value;
  return `#code=${deflateRawSync(bytes).toString("base64url")}`;
};
const json = (changes) => packed(JSON.stringify({
  v: 1, interpreter: "python3", files: [["main.py", "1"]], args: [], stdin: "", ...changes,
}));

test("what is shared comes back", async () => {
  const fragment = await encode(SHARED);
  assert.match(fragment, /^#code=[A-Za-z0-9_-]+$/);
  assert.deepEqual(await decode(fragment), SHARED);
  const raw = inflateRawSync(Buffer.from(fragment.slice(6), "base64url"));
  assert.equal(JSON.parse(raw).v, 1);
});

test("the test's own fragments are of the right form", async () => {
  assert.deepEqual(await decode(json({})), {
    interpreter: "python3", files: [{ path: "main.py", text: "1" }], args: [], stdin: "",
  });
});

test("what makes no link of 8 kB is not shared", async () => {
  let text = "";
  for (let n = 1; text.length < 20_000; n += 1) text += (n * 2654435761 % 2 ** 32).toString(36);
  assert.equal(await encode({ ...SHARED, files: [{ path: "main.py", text }] }), null);
  const files = [{ path: "main.py", text: "x".repeat(2 ** 20) }]; // small, but too large to be opened
  assert.equal(await encode({ ...SHARED, files }), null);
  let longest = null;
  for (let size = 5000; size < 15_000; size += 9) {
    const fragment = await encode({ ...SHARED, files: [{ path: "main.py", text: text.slice(0, size) }] });
    if (fragment === null) break;
    longest = fragment;
  }
  assert.ok(longest.length > 8100 && longest.length <= 8192, longest.length);
  assert.ok(await decode(longest));
});

test("what nobody has shared is nothing", async () => {
  for (const fragment of [
    "", "#", "#code", "#code=", "#code=!", "#code=A", "#code=AAAA", "#job=abc", "code=AAAA", "#code=%41",
    json({}).slice(0, -3), packed(""), packed("{"), packed("null"), packed("[]"), packed("7"),
    packed(Buffer.from([0xff])), `#code=${"A".repeat(9000)}`,
  ]) {
    assert.equal(await decode(fragment), null, fragment.slice(0, 60));
  }
});

test("every part must have its form", async () => {
  for (const changes of [
    { v: 2 }, { v: "1" }, { v: undefined }, { interpreter: 7 }, { interpreter: "a b" }, { interpreter: "\u202e" },
    { interpreter: "x".repeat(65) }, { args: "a" }, { args: [1] }, { args: Array(1001).fill("") },
    { args: ["\ud800"] }, { stdin: 1 }, { stdin: null }, { files: [] }, { files: {} }, { files: [["a"]] },
    { files: [["a", 1]] }, { files: [["a", "1", "2"]] }, { files: [["", "1"]] }, { files: [["../a", "1"]] },
    { files: [["/a", "1"]] }, { files: [["a\0", "1"]] }, { files: [["a\\b", "1"]] }, { files: [["a/./b", "1"]] },
    { files: [["\u202egnp.exe", "1"]] }, { files: [["c:x", "1"]] }, { files: [["a", "1"], ["a", "2"]] },
    { files: [["a", "1"], ["a/b", "2"]] }, { files: Array.from({ length: 101 }, (_, n) => [`${n}`, ""]) },
    { files: [["\ud800", "1"]] }, { files: [["x".repeat(256), "1"]] },
  ]) {
    assert.equal(await decode(json(changes)), null, JSON.stringify(changes).slice(0, 80));
  }
});

test("a bomb is not unpacked to its end", async () => {
  const before = process.memoryUsage().arrayBuffers;
  const bomb = packed(Buffer.alloc(6 * 2 ** 20, " "));
  assert.ok(bomb.length < 8192);
  assert.equal(await decode(bomb), null);
  assert.ok(process.memoryUsage().arrayBuffers - before < 20 * 2 ** 20);
  const large = `{"v":1,"interpreter":"","files":[["a","${"x".repeat(2 ** 20)}"]],"args":[],"stdin":""}`;
  assert.equal(await decode(packed(large)), null);
});
