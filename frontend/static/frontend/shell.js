// Words as a POSIX shell splits and quotes them, without anything that it would expand: what is typed
// into the field for arguments, and what is copied out of the page.

/**
 * The words of a line; `error` is a sentence where a quote or an escape is not finished, else "".
 * @param {string} text
 * @returns {{words: string[], error: string}}
 */
export function split(text) {
  const words = [];
  let word = null; // null: between words
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (" \t\r\n".includes(sign)) {
      if (word !== null) words.push(word);
      word = null;
    } else if (sign === "'") {
      const end = text.indexOf("'", at + 1);
      if (end < 0) return { words, error: "A single quote (') is not closed." };
      word = (word ?? "") + text.slice(at + 1, end);
      at = end;
    } else if (sign === '"') {
      const [inside, end] = quotedFrom(text, at + 1);
      if (end < 0) return { words, error: 'A double quote (") is not closed.' };
      word = (word ?? "") + inside;
      at = end;
    } else if (sign === "\\") {
      at += 1;
      if (at === text.length) return { words, error: "Nothing follows the last backslash (\\)." };
      if (text[at] !== "\n") word = (word ?? "") + text[at]; // else the line goes on
    } else {
      word = (word ?? "") + sign;
    }
  }
  if (word !== null) words.push(word);
  return { words, error: "" };
}

/** What is between double quotes, and where they close; -1: nowhere. */
function quotedFrom(text, start) {
  let inside = "";
  for (let at = start; at < text.length; at += 1) {
    if (text[at] === '"') return [inside, at];
    if (text[at] === "\\" && '$`"\\\n'.includes(text[at + 1] ?? "x")) {
      at += 1;
      if (text[at] === "\n") continue;
    }
    inside += text[at];
  }
  return ["", -1];
}

/**
 * A line that a shell splits into these words again.
 * @param {string[]} words
 * @returns {string}
 */
export function quote(words) {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : quoted(word))).join(" ");
}

const quoted = (word) => `'${word.replaceAll("'", `'"'"'`)}'`;
