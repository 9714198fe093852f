// Tables as text.
import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "../../frontend/static/frontend/csv.js";

const rows = (text, options) => parse(text, options).rows;

test("fields, quotes, doubled quotes, and lines within quotes", () => {
  assert.deepEqual(rows('a,b\n1,"x, ""y""\r\nz"\n'), [["a", "b"], ["1", 'x, "y"\r\nz']]);
  assert.deepEqual(rows('a,"b"c,"",d"e"\n'), [["a", "bc", "", 'd"e"']]);
});

test("lines end with LF, CR LF or CR, and the last one need not", () => {
  assert.deepEqual(rows("a,b\r\nc,d\re,f\ng,h"), [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]);
  assert.deepEqual(rows("a,\n,b\n"), [["a", ""], ["", "b"]]);
  assert.deepEqual(rows("a,"), [["a", ""]]);
  assert.deepEqual(rows("a\n\nb"), [["a"], [""], ["b"]]);
  assert.deepEqual(rows(""), []);
});

test("a byte order mark is no part of the first name", () => {
  assert.deepEqual(rows("\ufeffa,b"), [["a", "b"]]);
});

test("the delimiter is seen in the text", () => {
  assert.deepEqual(rows("a;b\n1,5;2,5\n"), [["a", "b"], ["1,5", "2,5"]]);
  assert.deepEqual(rows("a\tb\n1, 2\t3\n"), [["a", "b"], ["1, 2", "3"]]);
  assert.deepEqual(rows('"a;b;c",d\n"e;f;g",h\n'), [["a;b;c", "d"], ["e;f;g", "h"]]);
  assert.deepEqual(rows("only\none\n"), [["only"], ["one"]]);
});

test("no more rows and columns than asked for, and that there are more is told", () => {
  assert.deepEqual(parse("a\nb\nc\n", { rows: 2 }), { rows: [["a"], ["b"]], more: true });
  assert.deepEqual(parse("a\nb\n", { rows: 2 }), { rows: [["a"], ["b"]], more: false });
  assert.deepEqual(parse("a,b,c\n", { columns: 2 }), { rows: [["a", "b"]], more: true });
  assert.deepEqual(parse("a,b\n", { columns: 2 }), { rows: [["a", "b"]], more: false });
});

test("a quote that is never closed, and a line of a million commas, are over soon", () => {
  const before = performance.now();
  assert.deepEqual(rows(`a,"${"x\n".repeat(500_000)}`)[0][1].length, 1_000_000);
  assert.equal(rows(",".repeat(1_000_000))[0].length, 50);
  assert.equal(rows(`"${'""'.repeat(500_000)}"`)[0][0].length, 500_000);
  assert.equal(rows('"'.repeat(1_000_001)).length, 1);
  assert.ok(performance.now() - before < 5000);
});

test("what was written as RFC 4180 says is read again", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  let state = seed;
  const random = (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
  const letters = ["a", '"', ",", ";", "\t", "\n", "\r", " ", "é", "😀"];
  for (let round = 0; round < 2000; round++) {
    const delimiter = [",", ";", "\t"][random(3)];
    const table = Array.from({ length: 1 + random(5) }, () => Array.from({ length: 1 + random(5) }, () =>
      Array.from({ length: random(6) }, () => letters[random(letters.length)]).join("")));
    const text = table.map((row) => row.map((field) => `"${field.replaceAll('"', '""')}"`).join(delimiter))
      .join(random(2) ? "\r\n" : "\n");
    assert.deepEqual(rows(text, { delimiter }), table, `SEED=${seed}, round ${round}`);
  }
});
