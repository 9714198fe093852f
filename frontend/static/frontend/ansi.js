// What a stream printed, as lines with styles: the part of a terminal that a log needs, without a screen.
// Colours, \r, \b and erasing in the line are done; every other escape sequence is swallowed whole, and
// whatever a reader could not see is shown as a mark. How the text is cut into pieces changes nothing.

/** A line is cut after so many UTF-16 units: browsers lay it out as a whole. The cursor stays inside. */
export const PART = 4096;
const LONGEST_CSI = 256;
const LONGEST_STRING = 1 << 20; // titles, links, pictures: unfinished ones hide no more, nor another line
const MOST_MARKS = 8; // combining marks on one letter: more would cover the lines around
const TAB = "\t";

const UNSEEN =
  "\\p{Cc}\\p{Cs}\\p{Bidi_Control}\\p{Default_Ignorable_Code_Point}\\u2028\\u2029\\ufff9-\\ufffb";
const SPECIAL = new RegExp(`[${UNSEEN}\\p{M}]`, "gu");
const HIDDEN = new RegExp(`[${UNSEEN}]`, "gu");
const HIDDEN_IN_TEXT = new RegExp(`(?![\\n\\t])[${UNSEEN}]`, "gu");
const CELL = /[^][\p{M}\u200d]*/gu; // a letter and what sits on it
const ENDS_STRING = /[\x07\x18\x1a\x1b\n\x9c]/g;
const EMOJI = /\p{Emoji}$/u;
const JOINABLE = /[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]$/u;

const BOLD = 1, DIM = 2, ITALIC = 4, UNDERLINE = 8, INVERSE = 16, STRIKE = 32;
/** Bits of a style's `flags`. */
export const FLAGS = { BOLD, DIM, ITALIC, UNDERLINE, INVERSE, STRIKE };

/**
 * @typedef {{fg: number | string | null, bg: number | string | null, flags: number}} Style
 *   Colours: 0 to 255 of the palette, or "#rrggbb"; null: as the page has it.
 * @typedef {{end: number, style: Style}} Run  Up to `end` of the text, from where the one before ended.
 * @typedef {{text: string, runs: Run[], continued: boolean}} Line  continued: it is a further part of a line.
 */

/** @type {Style} */
export const PLAIN = Object.freeze({ fg: null, bg: null, flags: 0 });
const same = (a, b) => a === b || (a.fg === b.fg && a.bg === b.bg && a.flags === b.flags);

function mark(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x7f ? "\u2421" : "\ufffd";
}

/**
 * Text in which everything is seen: controls, bidi controls and invisible characters are marks.
 * @param {string} text
 * @param {{lines?: boolean}} [options] lines: newlines and tabs stay
 */
export const visible = (text, { lines = false } = {}) =>
  String(text).replace(lines ? HIDDEN_IN_TEXT : HIDDEN, mark);

/**
 * One stream.
 * @returns {{write(text: string): Line[], open(): Line | null, cut(): Line | null}}
 *   write: the lines that ended meanwhile; open: the one that has not; cut: ends it, and forgets styles
 *   and unfinished sequences, as bytes are missing here.
 */
export function createTerminal() {
  let ended = [];
  let held = ""; // half of a character
  let state = ground;
  let sequence = ""; // the inside of a CSI
  let swallowed = 0;
  let style = PLAIN;
  // The open line: text and runs as long as all is added at its end, cells once something is overwritten.
  let text, runs, cells, styles, units, cursor, continued;
  let tail; // of text: looking into a string that grows is slow
  begin(false);

  function begin(part) {
    [text, runs, cells, styles, units, cursor, continued] = ["", [], null, null, 0, null, part];
    tail = "";
  }

  function open() {
    if (!cells) return text === "" && !continued ? null : { text, runs: [...runs], continued };
    const of = [];
    let length = 0;
    cells.forEach((cell, at) => {
      length += cell.length;
      if (of.length && same(of.at(-1).style, styles[at])) of.at(-1).end = length;
      else of.push({ end: length, style: styles[at] });
    });
    return { text: cells.join(""), runs: of, continued };
  }

  function end(part) {
    ended.push(open() ?? { text: "", runs: [], continued });
    begin(part);
  }

  function toCells() {
    if (cells) return;
    cells = text.match(CELL) ?? [];
    styles = [];
    let at = 0, run = 0;
    for (const cell of cells) {
      while (at >= runs[run].end) run++;
      styles.push(runs[run].style);
      at += cell.length;
    }
    units = at;
    cursor ??= cells.length;
  }

  const empty = () => !cells && text === "";

  function cellBefore() {
    if (cursor !== null) toCells();
    return (cells ? cells[cursor - 1] : tail.match(CELL)?.at(-1)) ?? "";
  }

  /** Letters without marks on them. */
  function put(letters) {
    if (cursor === null) {
      while (letters) {
        if (text.length >= PART) end(true);
        let size = Math.min(letters.length, PART - text.length);
        if (size < letters.length && letters.codePointAt(size - 1) > 0xffff) size++;
        text += letters.slice(0, size);
        tail = (tail + letters.slice(Math.max(0, size - 32), size)).slice(-32);
        letters = letters.slice(size);
        if (runs.length && same(runs.at(-1).style, style)) runs.at(-1).end = text.length;
        else runs.push({ end: text.length, style });
      }
      return;
    }
    for (const letter of letters) {
      toCells();
      pad();
      if (cursor >= cells.length && units >= PART) {
        end(true);
        cursor = 0;
        toCells();
      }
      units += letter.length - (cells[cursor]?.length ?? 0);
      cells[cursor] = letter;
      styles[cursor++] = style;
    }
  }

  function pad() {
    while (cells.length < cursor) {
      cells.push(" ");
      styles.push(PLAIN);
      units++;
    }
  }

  /** What sits on the letter before. */
  function attach(character) {
    if (cursor !== null) {
      toCells();
      pad();
    }
    if (cellBefore() === "") return put(character);
    if (cells) {
      cells[cursor - 1] += character;
      units += character.length;
    } else {
      text += character;
      tail = (tail + character).slice(-32);
      runs.at(-1).end = text.length;
    }
  }

  function special(character) {
    if (character === "\n") end(false);
    else if (character === "\r") cursor = empty() ? null : 0;
    else if (character === "\x1b") state = escape;
    else if (character === TAB) put(TAB);
    else if (character === "\b") {
      if (empty()) return;
      toCells();
      cursor = Math.max(0, cursor - 1);
    } else if (character === "\ufe0e" || character === "\ufe0f") {
      if (EMOJI.test(cellBefore())) attach(character);
      else put("\ufffd");
    } else if (character === "\u200d") {
      if (JOINABLE.test(cellBefore())) attach(character);
      else put("\ufffd");
    } else if (visible(character) === character) {
      if ((cellBefore().match(/\p{M}/gu)?.length ?? 0) < MOST_MARKS) attach(character);
      else put("\ufffd");
    } else put(mark(character));
  }

  function erase(how) {
    if (empty() || (how === 0 && cursor === null)) return;
    toCells();
    const blank = how === 1 ? Math.min(cursor + 1, cells.length) : 0;
    if (how === 0 && cursor < cells.length) cells.length = styles.length = cursor;
    if (how === 2) cells.length = styles.length = 0;
    cells.fill(" ", 0, blank);
    styles.fill(PLAIN, 0, blank);
    units = cells.reduce((sum, cell) => sum + cell.length, 0);
  }

  // The states: each takes what it can of `piece` from `at` and returns where it stopped.

  function ground(piece, at) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(piece);
    const stop = found ? found.index : piece.length;
    if (stop > at) put(piece.slice(at, stop));
    if (!found) return stop;
    special(found[0]);
    return stop + found[0].length;
  }

  function escape(piece, at) {
    const character = piece[at];
    if (character === "[") [state, sequence] = [csi, ""];
    else if ("]PX^_".includes(character)) [state, swallowed] = [string, 0];
    else if (character >= " " && character <= "/") [state, swallowed] = [intermediate, 0];
    else {
      state = ground;
      if (character >= "0" && character <= "~") return at + 1;
      put(mark("\x1b")); // it was none
      return at;
    }
    return at + 1;
  }

  function intermediate(piece, at) {
    const character = piece[at];
    if (character >= " " && character <= "/" && ++swallowed < LONGEST_CSI) return at + 1;
    state = ground;
    return character >= "0" && character <= "~" ? at + 1 : at;
  }

  function csi(piece, at) {
    const character = piece[at];
    if (character >= " " && character <= "?" && sequence.length < LONGEST_CSI) {
      sequence += character;
      return at + 1;
    }
    state = ground;
    if (!(character >= "@" && character <= "~")) return at; // unfinished
    if (/^[\d;:]*$/.test(sequence)) {
      const first = parseInt(sequence, 10) || 0;
      if (character === "m") style = restyled(style, sequence);
      else if (character === "K") erase(first);
      else if (character === "G" && first <= 1) special("\r"); // what Node's readline says for \r
    }
    return at + 1;
  }

  function string(piece, at) {
    ENDS_STRING.lastIndex = at;
    const most = at + LONGEST_STRING - swallowed;
    const stop = Math.min(ENDS_STRING.exec(piece)?.index ?? piece.length, most);
    swallowed += stop - at;
    if (stop === piece.length && stop < most) return stop;
    state = ground;
    return stop === most || piece[stop] === "\n" || piece[stop] === "\x1b" ? stop : stop + 1;
  }

  return {
    open,
    write(piece) {
      ended = [];
      piece = held + piece;
      held = /[\ud800-\udbff]$/.test(piece) ? piece.slice(-1) : "";
      if (held) piece = piece.slice(0, -1);
      for (let at = 0; at < piece.length;) at = state(piece, at);
      return ended;
    },
    cut() {
      [state, style] = [ground, PLAIN];
      if (held) put(mark(held));
      held = "";
      const last = open();
      begin(false);
      return last;
    },
  };
}

/** @param {Style} style @param {string} parameters of an SGR: "1;31", "38:2::1:2:3" */
function restyled({ fg, bg, flags }, parameters) {
  const groups = parameters.split(";");
  for (let at = 0; at < groups.length; at++) {
    const [code, ...inside] = groups[at].split(":").map((word) => Number(word || 0));
    if (code === 0) [fg, bg, flags] = [null, null, 0];
    else if (code === 1) flags |= BOLD;
    else if (code === 2) flags |= DIM;
    else if (code === 3) flags |= ITALIC;
    else if (code === 4) flags = inside[0] === 0 && inside.length ? flags & ~UNDERLINE : flags | UNDERLINE;
    else if (code === 7) flags |= INVERSE;
    else if (code === 9) flags |= STRIKE;
    else if (code === 21) flags |= UNDERLINE;
    else if (code === 22) flags &= ~(BOLD | DIM);
    else if (code === 23) flags &= ~ITALIC;
    else if (code === 24) flags &= ~UNDERLINE;
    else if (code === 27) flags &= ~INVERSE;
    else if (code === 29) flags &= ~STRIKE;
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 39) fg = null;
    else if (code === 49) bg = null;
    else if (code === 38 || code === 48 || code === 58) {
      const kind = inside.length ? inside : groups.slice(at + 1, at + 5).map(Number);
      const colour = colourOf(kind, inside.length > 0);
      if (!inside.length) at += kind[0] === 5 ? 2 : kind[0] === 2 ? 4 : 0;
      if (code === 38) fg = colour ?? fg;
      if (code === 48) bg = colour ?? bg;
    }
  }
  return { fg, bg, flags };
}

/** 5;N or 2;R;G;B; with colons also 2:SPACE:R:G:B. */
function colourOf([kind, ...of], colons) {
  const fits = (number) => Number.isInteger(number) && number >= 0 && number <= 255;
  if (kind === 5) return fits(of[0]) ? of[0] : null;
  const rgb = colons && of.length > 3 ? of.slice(1, 4) : of.slice(0, 3);
  if (kind !== 2 || rgb.length < 3 || !rgb.every(fits)) return null;
  return `#${rgb.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}
