// What a stream printed, as lines: ansi.js without a browser.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createTerminal, FLAGS, PART, PLAIN, visible } from "../../frontend/static/frontend/ansi.js";

/** All lines of the pieces, the unfinished one last. */
function lines(...pieces) {
  const terminal = createTerminal();
  const found = pieces.flatMap((piece) => {
    terminal.open(); // looking at the unfinished line changes nothing
    return terminal.write(piece);
  });
  const open = terminal.open();
  return open ? [...found, open] : found;
}
const texts = (...pieces) => lines(...pieces).map((line) => line.text);

/** [text, style] of every run of the only line. */
function styled(text) {
  const [line] = lines(text);
  return line.runs.map(({ end, style }, at) => [line.text.slice(at ? line.runs[at - 1].end : 0, end), style]);
}
const style = (of) => ({ ...PLAIN, ...of });

test("lines end with a newline, and CR LF is one", () => {
  assert.deepEqual(texts("a\nb\r\n\nc"), ["a", "b", "", "c"]);
  assert.deepEqual(texts("a\n"), ["a"]);
  assert.deepEqual(texts(""), []);
});

test("a carriage return overwrites, and the rest of an older longer line stays", () => {
  assert.deepEqual(texts("100 %\r 7 %\n"), [" 7 %%"]);
  assert.deepEqual(texts("abc\r"), ["abc"]);
  assert.deepEqual(texts("\rabc\r\rx"), ["xbc"]);
  assert.deepEqual(texts("eins\n\rzwei"), ["eins", "zwei"]);
});

test("a backspace moves back and deletes nothing", () => {
  assert.deepEqual(texts("abc\b\bX"), ["aXc"]);
  assert.deepEqual(texts("\b\bab\b\b\b\bc"), ["cb"]);
  assert.deepEqual(texts("|\b/\b-\b\\"), ["\\"]);
});

test("a line is erased to its end, to its start, or whole", () => {
  assert.deepEqual(texts("100 %\r\x1b[K 7 %"), [" 7 %"]);
  assert.deepEqual(texts("abcdef\b\b\x1b[K"), ["abcd"]);
  assert.deepEqual(texts("abcdef\b\b\x1b[1K"), ["     f"]);
  assert.deepEqual(texts("abc\x1b[2Kd"), ["   d"]);
  assert.deepEqual(texts("abc\x1b[2K\rd"), ["d"]);
  assert.deepEqual(texts("abc\x1b[Kd\x1b[K"), ["abcd"]);
  assert.deepEqual(texts("abc\x1b[Gx\x1b[1Gy"), ["ybc"]);
});

test("a letter of several code points is overwritten as one", () => {
  assert.deepEqual(texts("e\u0301x\ra"), ["ax"]);
  assert.deepEqual(texts("😀x\ra"), ["ax"]);
  assert.deepEqual(texts("ab\b\u0301"), ["a\u0301b"]);
  assert.deepEqual(texts("ab\r\u0301"), ["\u0301b"]);
  assert.deepEqual(texts("😀\r\ufe0fx"), ["\ufffdx"]);
});

test("the sixteen colours, the 256 and the true ones, with semicolons and colons", () => {
  assert.deepEqual(styled("\x1b[31mr\x1b[92mg\x1b[0mn"), [
    ["r", style({ fg: 1 })], ["g", style({ fg: 10 })], ["n", PLAIN],
  ]);
  assert.deepEqual(styled("\x1b[44ma\x1b[103mb\x1b[49mc"), [
    ["a", style({ bg: 4 })], ["b", style({ bg: 11 })], ["c", PLAIN],
  ]);
  assert.deepEqual(styled("\x1b[38;5;208ma\x1b[48;2;1;2;255mb"), [
    ["a", style({ fg: 208 })], ["b", style({ fg: 208, bg: "#0102ff" })],
  ]);
  assert.deepEqual(styled("\x1b[38:5:208ma\x1b[38:2::1:2:3mb\x1b[38:2:1:2:4mc\x1b[39md"), [
    ["a", style({ fg: 208 })], ["b", style({ fg: "#010203" })], ["c", style({ fg: "#010204" })], ["d", PLAIN],
  ]);
});

test("bold, dim, italic, underline, inverse and strike come and go", () => {
  const { BOLD, DIM, ITALIC, UNDERLINE, INVERSE, STRIKE } = FLAGS;
  for (const [on, off, flag] of [
    [1, 22, BOLD], [2, 22, DIM], [3, 23, ITALIC], [4, 24, UNDERLINE], [7, 27, INVERSE], [9, 29, STRIKE],
    ["4:3", "4:0", UNDERLINE], [21, 24, UNDERLINE],
  ]) {
    assert.deepEqual(styled(`\x1b[${on}ma\x1b[${off}mb`), [["a", style({ flags: flag })], ["b", PLAIN]]);
  }
  const both = style({ fg: 1, flags: BOLD | ITALIC });
  assert.deepEqual(styled("\x1b[1;3;31ma\x1b[mb"), [["a", both], ["b", PLAIN]]);
});

test("colours that are none change nothing, and hidden text is shown", () => {
  assert.deepEqual(styled("\x1b[38;5;256ma\x1b[38;2;1mb\x1b[8mc\x1b[58;5;1md"), [["abcd", PLAIN]]);
});

test("colours go on over the end of a line", () => {
  assert.deepEqual(lines("\x1b[31ma\nb").map((line) => line.runs[0].style.fg), [1, 1]);
});

test("every other escape sequence is swallowed whole", () => {
  for (const sequence of [
    "\x1b[2J", "\x1b[10;20H", "\x1b[3A", "\x1b[?25l", "\x1b[?1049h", "\x1b[>4;1m", "\x1b[0 q",
    "\x1b[!p", "\x1b[6n",
    "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]8;id=1;https:evil\x1b\\", "\x1b]52;c;aGk=\x07",
    "\x1b]0;a\x9c",
    "\x1bP1$r0m\x1b\\", "\x1b_Gf=100;AAAA\x1b\\", "\x1b^private\x1b\\", "\x1bXstart\x1b\\",
    "\x1b(B", "\x1b#8", "\x1b%G", "\x1bc", "\x1b7", "\x1b=", "\x1bM", "\x1b]0;cancelled\x18",
  ]) {
    assert.deepEqual(texts(`a${sequence}b`), ["ab"], JSON.stringify(sequence));
  }
});

test("the words of a hyperlink stay and its address goes", () => {
  assert.deepEqual(texts("see \x1b]8;;https:evil\x1b\\here\x1b]8;;\x1b\\."), ["see here."]);
});

test("an unfinished sequence takes its line at most", () => {
  assert.deepEqual(texts("a\x1b]0;title without end\nb"), ["a", "b"]);
  assert.deepEqual(texts("a\x1b]0;ti\x1b[31mb"), ["ab"]);
  assert.deepEqual(texts("a\x1b[31\nb"), ["a", "b"]);
  assert.deepEqual(texts(`a\x1b[${"1".repeat(300)}mb`), [`a${"1".repeat(44)}mb`]);
  assert.equal(texts(`a\x1b]0;${"x".repeat(1 << 21)}`).join("").length, 1 + (1 << 20) + 2);
  assert.deepEqual(texts("a\x1b"), ["a"]);
  assert.deepEqual(texts("a\x1b\x1b[1mb\x1b\u00e9"), ["a\u241bb\u241b\u00e9"]);
});

test("whatever is not seen is a mark", () => {
  assert.deepEqual(texts("a\0b\x07c\x7fd\x85e\x9bf"), ["a\u2400b\u2407c\u2421d\ufffde\ufffdf"]);
  for (const hidden of [
    "\u00ad", "\u034f", "\u061c", "\u115f", "\u180e", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f",
    "\u202a",
    "\u202e", "\u2028", "\u2029", "\u2060", "\u2066", "\u2069", "\u206f", "\u3164", "\ufe00", "\ufe0f",
    "\ufeff",
    "\uffa0", "\ufff9", "\u{1d173}", "\u{e0041}", "\u{e0100}", "\ud800", "\udc00",
  ]) {
    assert.deepEqual(texts(`a${hidden}b`), ["a\ufffdb"], hidden.codePointAt(0).toString(16));
    assert.equal(visible(`a${hidden}b`), "a\ufffdb");
  }
});

test("tabs, spaces of other widths, right-to-left letters and emoji stay as they are", () => {
  for (const text of ["a\tb", "a\u00a0b\u3000c", "\u05d0\u05d1", "⚠️ 1️⃣", "👩‍💻👩🏽‍🚀", "नमस्ते", "e\u0301"]) {
    assert.deepEqual(texts(text), [text]);
  }
});

test("at most eight marks sit on a letter", () => {
  const [text] = texts(`e${"\u0301".repeat(100)}`);
  assert.equal(text.match(/^e\u0301+/)[0].length, 9);
});

test("a line without an end comes in parts, of which the first alone is not continued", () => {
  const found = lines("x".repeat(3 * PART), "\ny");
  assert.deepEqual(found.map((line) => [line.text.length, line.continued]), [
    [PART, false], [PART, true], [PART, true], [1, false],
  ]);
  assert.equal(texts("😀".repeat(PART)).join(""), "😀".repeat(PART));
  assert.equal(texts(`x${"😀".repeat(PART)}`)[0], `x${"😀".repeat(PART / 2)}`);
  assert.equal(texts(`${"x".repeat(PART)}y\rz`).at(-1), "z");
  assert.deepEqual(texts(`ab\rc${"x".repeat(PART + 10)}`).map((text) => text.length), [PART, 11]);
});

test("a cut ends the line and forgets colours and what was unfinished", () => {
  const terminal = createTerminal();
  terminal.write("a\x1b[31mb\x1b]0;title");
  assert.equal(terminal.cut().text, "ab");
  terminal.write("c");
  assert.deepEqual(terminal.open(), { text: "c", runs: [{ end: 1, style: PLAIN }], continued: false });
});

test("visible keeps lines and tabs only where it is told to", () => {
  assert.equal(visible("a\n\tb\rc"), "a\u240a\u2409b\u240dc");
  assert.equal(visible("a\n\tb\rc", { lines: true }), "a\n\tb\u240dc");
});

test("however the output is cut into pieces, the lines are the same", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  let state = seed;
  const random = (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
  const bits = [
    "a", "b c", "\n", "\r", "\b", "\t", "\x1b", "[", "]", "m", "K", ";", ":", "1", "31", "38", "2",
    "5", "\x07", "\\",
    "\x1b[31m", "\x1b[0m", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[1G", "\x1b]8;;x\x1b\\", "\x1bP",
    "\x1b(B", "\x9c", "\0",
    "\u202e", "\u200d", "\ufe0f", "😀", "👩‍💻", "\ud83d", "\ude00", "\u0301", "e\u0301", "נ", "#",
    "xxxxxxxx", "\x18",
  ];
  for (let round = 0; round < 3000; round++) {
    let text = Array.from({ length: random(40) }, () => bits[random(bits.length)]).join("");
    if (round % 50 === 0) text = text + "yz😀".repeat(PART / 3) + text;
    const pieces = [];
    for (let at = 0; at < text.length;) {
      const size = 1 + random(round % 50 ? 6 : 3000);
      pieces.push(text.slice(at, at + size));
      at += size;
    }
    const where = `SEED=${seed}, round ${round}: ${JSON.stringify(pieces)}`;
    assert.deepEqual(lines(...pieces), lines(text), where);
  }
});
