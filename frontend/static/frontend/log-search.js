// Finding words in all lines of a log, also those that the browser has not drawn yet.

import { rangeOf } from "./log-line.js";

const SHOWN = 500; // hits before and behind the present one that are marked
const SYNTAX = /[\\^$.*+?()[\]{}|/]/g;

/** The whole lines: each the first entry of a line and the text of all its parts. */
export function* whole(entries) {
  for (const entry of entries) {
    if (entry.before) continue;
    if (!entry.next) {
      yield [entry, entry.text];
      continue;
    }
    const texts = [];
    for (let part = entry; part; part = part.next) texts.push(part.text);
    yield [entry, texts.join("")];
  }
}

/**
 * Every place of `words` in the lines, in whatever case.
 * @param {Iterable<[object, string]>} lines
 * @returns {{entries: object[], offsets: number[], lengths: number[]}}
 */
export function places(lines, words) {
  const found = { entries: [], offsets: [], lengths: [] };
  const pattern = new RegExp(words.replace(SYNTAX, "\\$&"), "giu");
  for (const [entry, text] of lines) {
    pattern.lastIndex = 0;
    for (let hit; (hit = pattern.exec(text));) {
      found.entries.push(entry);
      found.offsets.push(hit.index);
      found.lengths.push(hit[0].length);
    }
  }
  return found;
}

/** Goes from hit to hit; `window` has CSS.highlights, or not. */
export function createSearch(window) {
  const registry = window.CSS?.highlights;
  let words = "";
  let place = null; // {serial, offset}: of the present hit
  let marked = null;

  function unmark() {
    marked?.classList.remove("hit");
    marked = null;
    registry?.delete("log-hit");
    registry?.delete("log-hit-now");
  }

  function mark({ entries, offsets, lengths }, index) {
    marked = entries[index].element;
    marked.classList.add("hit");
    if (!registry) return;
    const ranges = [];
    for (let at = Math.max(0, index - SHOWN); at < Math.min(entries.length, index + SHOWN); at++) {
      ranges.push(rangeOf(entries[at], offsets[at], lengths[at], window));
    }
    const now = new window.Highlight(ranges[Math.min(index, SHOWN)]);
    now.priority = 1;
    registry.set("log-hit", new window.Highlight(...ranges));
    registry.set("log-hit-now", now);
  }

  return {
    forget() {
      unmark();
      [words, place] = ["", null];
    },
    /** The hits, and which of them is the present one: the next, when the words are those of before. */
    find(lines, wanted, backwards) {
      unmark();
      if (wanted === "") {
        [words, place] = ["", null];
        return { count: 0, index: -1 };
      }
      const again = wanted === words;
      words = wanted;
      const hits = places(lines, wanted);
      const count = hits.entries.length;
      if (!count) return { count, index: -1 };
      let index = backwards ? count - 1 : 0;
      if (place) {
        const from = (at) => hits.entries[at].serial - place.serial || hits.offsets[at] - place.offset;
        const next = backwards
          ? hits.entries.findLastIndex((_, at) => from(at) < (again ? 0 : 1))
          : hits.entries.findIndex((_, at) => from(at) >= (again ? 1 : 0));
        if (next >= 0) index = next;
      }
      place = { serial: hits.entries[index].serial, offset: hits.offsets[index] };
      mark(hits, index);
      const range = rangeOf(hits.entries[index], hits.offsets[index], hits.lengths[index],
        { document: window.document });
      return { count, index, range };
    },
  };
}
