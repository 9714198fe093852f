// What preview.js knows without a browser.
import assert from "node:assert/strict";
import { test } from "node:test";

import { kindOf, pretty, shownName, shownSize } from "../../frontend/static/frontend/preview.js";

test("a name is shown with every letter seen", () => {
  assert.equal(shownName("a\u202egnp.exe\n\u200b\0"), "a\ufffdgnp.exe\u240a\ufffd\u2400");
  assert.equal(shownName('<img src=x onerror="alert(1)">.png'), '<img src=x onerror="alert(1)">.png');
  assert.equal(shownName("Übung 日本.txt"), "Übung 日本.txt");
});

test("sizes are told as people read them", () => {
  for (const [bytes, said] of [
    [0, "0 bytes"], [1, "1 byte"], [999, "999 bytes"], [1000, "1 kB"], [1234, "1.23 kB"], [100000, "100 kB"],
    [1500000, "1.5 MB"], [10_000_000, "10 MB"], [2_345_678_901, "2.35 GB"],
  ]) {
    assert.equal(shownSize(bytes), said);
  }
});

test("the end of the name tells how an output is shown, whatever type the server has for it", () => {
  for (const [name, kind] of [
    ["plot.png", "image"], ["PLOT.JPG", "image"], ["a.svg", "image"], ["t.csv", "table"], ["t.tsv", "table"],
    ["x.json", "json"], ["page.html", "html"], ["page.htm", "html"], ["a.mp3", "audio"], ["v.webm", "video"],
    ["a.constructor", "other"], ["png", "other"], ["a.png.exe", "other"], [".png/x", "other"],
  ]) {
    assert.equal(kindOf({ name, mime_type: "application/x", type: "other" }).kind, kind, name);
  }
  assert.equal(kindOf({ name: "Makefile", mime_type: "text/plain", type: "other" }).kind, "text");
  assert.equal(kindOf({ name: "x.py", mime_type: "application/x", type: "code" }).kind, "text");
  assert.equal(kindOf({ name: "x", mime_type: "image/svg+xml", type: "image" }).kind, "other");
});

test("JSON is laid out and its words stay", () => {
  assert.equal(
    pretty('{"a":[1,2.50,12345678901234567890],"b":{},"c":[],"d":"x,\\"{ y", "a": null}'),
    '{\n  "a": [\n    1,\n    2.50,\n    12345678901234567890\n  ],\n  "b": {},\n  "c": [],\n' +
      '  "d": "x,\\"{ y",\n  "a": null\n}',
  );
  assert.equal(pretty("1"), "1");
  for (const text of ["", "{", "{'a': 1}", "[1,]", "NaN", "a b"]) assert.equal(pretty(text), null);
});

test("what is laid out means the same", () => {
  const value = { a: [[], [[]], {}, { b: [1, { c: "\\\"[]{},:" }] }], "": [true, null, -1e-7, " \u2028"] };
  assert.deepEqual(JSON.parse(pretty(JSON.stringify(value))), value);
});

test("JSON that is nested deeply or long takes no more room than it may", () => {
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  assert.ok((pretty(deep) ?? "").length < 200_000);
  assert.ok(pretty(`[${"1,".repeat(400_000)}1]`).length < 101_000);
});
