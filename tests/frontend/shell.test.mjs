// shell.js alone; what shells and Python's shlex make of the same text: test_shell.py.
import assert from "node:assert/strict";
import test from "node:test";
import { quote, split } from "../../frontend/static/frontend/shell.js";

const words = (text) => {
  const { words: found, error } = split(text);
  assert.equal(error, "");
  return found;
};

test("a line is split into words", () => {
  assert.deepEqual(words(""), []);
  assert.deepEqual(words(" \t\r\n"), []);
  assert.deepEqual(words("--epochs 3  -v"), ["--epochs", "3", "-v"]);
  assert.deepEqual(words(`a'b c'"d e"f '' ""`), ["ab cd ef", "", ""]);
  assert.deepEqual(words(`"\\$5 \\x \\" \\\\" \\'`), ['$5 \\x " \\', "'"]);
  assert.deepEqual(words("'a\nb' c\\\nd"), ["a\nb", "cd"]);
});

test("nothing is expanded", () => {
  const line = "$HOME `id` $(id) * ~ {a,b} # no comment > file | cat ; ls &";
  assert.deepEqual(words(line), line.split(" "));
});

test("what is not finished is said in a sentence", () => {
  for (const text of ["'", "a 'b", '"', '"a\\"', "'\\''", "a\\"]) {
    const { error } = split(text);
    assert.match(error, /^[A-Z].*\.$/, text);
  }
});

test("words are quoted as they need it", () => {
  assert.equal(quote(["a", "", "b c", "it's", "--x=1", "ü"]), `a '' 'b c' 'it'"'"'s' --x=1 'ü'`);
});
