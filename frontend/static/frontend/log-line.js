// A line of the log as an element: text nodes, spans with classes, colours by CSSOM. Nothing else is made
// of what a job printed.

import { FLAGS } from "./ansi.js";
import { paint } from "./colours.js";

const MOST_SPANS = 512; // in one line: what comes behind has the colour of the last
const MOST_LOOKS = 4096;
const CLASSES = { b: FLAGS.BOLD, i: FLAGS.ITALIC, u: FLAGS.UNDERLINE, s: FLAGS.STRIKE };
const looks = new Map(); // of a style: what its span has

/**
 * @typedef {object} Entry A line, or a part of one, that is shown.
 * @property {"stdout" | "stderr" | "note"} stream
 * @property {number} serial
 * @property {number} [t] seconds after the start
 * @property {string} text
 * @property {import("./ansi.js").Run[]} runs
 * @property {Entry} [before] the part that this one continues
 * @property {Entry} [next] the part that continues this one
 * @property {boolean} [gap]
 * @property {boolean} [gone] no longer kept
 * @property {HTMLElement} [element]
 */

function lookOf(style) {
  const key = `${style.fg},${style.bg},${style.flags}`;
  let look = looks.get(key);
  if (!look) {
    if (looks.size >= MOST_LOOKS) looks.clear();
    looks.set(key, (look = newLook(style)));
  }
  return look;
}

function newLook(style) {
  const { fg, bg, flags } = style;
  const classes = Object.keys(CLASSES).filter((name) => flags & CLASSES[name]);
  const plain = bg === null && !(flags & FLAGS.INVERSE);
  if (plain && fg === null && flags & FLAGS.DIM) classes.push("d");
  if (plain && typeof fg === "number" && fg < 16) classes.push(`f${fg}`);
  else if (!plain || fg !== null) {
    classes.push("p");
    const properties = ["light", "dark"].flatMap((theme) =>
      Object.entries(paint(style, theme)).map(([name, colour]) => [`--${name}-${theme}`, colour]));
    return { classes: classes.join(" "), properties: properties.filter(([, colour]) => colour) };
  }
  return { classes: classes.join(" "), properties: [] };
}

/** How many elements a line needs. @param {Entry} entry */
export const spansOf = (entry) => Math.min(entry.runs.length, MOST_SPANS);

/** Makes or makes anew the entry's element. @param {Entry} entry @param {Document} document */
export function draw(entry, document) {
  const parts = [];
  if (entry.stream === "stderr" && !entry.before) {
    const said = document.createElement("span");
    said.className = "said";
    said.textContent = "stderr: ";
    parts.push(said);
  }
  let start = 0;
  entry.runs.slice(0, MOST_SPANS).forEach(({ end, style }, at) => {
    const text = entry.text.slice(start, at === MOST_SPANS - 1 ? undefined : end);
    start = end;
    const { classes, properties } = lookOf(style);
    if (!classes) return parts.push(text);
    const span = document.createElement("span");
    span.className = classes;
    for (const [name, value] of properties) span.style.setProperty(name, value);
    span.textContent = text;
    parts.push(span);
  });
  if (!entry.runs.length) parts.push(entry.text);
  if (entry.element) return entry.element.replaceChildren(...parts);
  entry.element = document.createElement("div");
  const kind = { stdout: "out", stderr: "err", note: "note" }[entry.stream];
  entry.element.className = `line ${kind}${entry.gap ? " note" : ""}`;
  if (entry.t !== undefined && !entry.before) entry.element.dataset.t = entry.t.toFixed(3);
  entry.element.append(...parts);
}

/** A live or static range over a part of a line, which may lie in several entries. */
export function rangeOf(entry, at, length, { document, StaticRange }) {
  const [startContainer, startOffset] = place(entry, at);
  const [endContainer, endOffset] = place(entry, at + length, true);
  if (StaticRange) return new StaticRange({ startContainer, startOffset, endContainer, endOffset });
  const range = document.createRange();
  range.setStart(startContainer, startOffset);
  range.setEnd(endContainer, endOffset);
  return range;
}

/** The text node at an offset of the line that begins with `entry`; before: the one that ends there. */
function place(entry, at, before = false) {
  const inside = () => at < entry.text.length || (before && at === entry.text.length);
  while (!inside() && entry.next) {
    at -= entry.text.length;
    entry = entry.next;
  }
  let found = [entry.element, 0];
  for (const child of entry.element.childNodes) {
    if (child.className === "said") continue;
    const text = child.firstChild ?? child;
    found = [text, Math.min(at, text.length)];
    if (at < text.length || (before && at === text.length)) break;
    at -= text.length;
  }
  return found;
}
