// Tables as text (RFC 4180, and what spreadsheets make of it), as many rows and columns as are shown: what
// comes behind them is not read.

const DELIMITERS = [",", ";", "\t"];
const GUESSED = 1 << 14; // characters that are looked at for the delimiter

/** The delimiter that is most often outside of quotes in the first lines, and there in the same number. */
function guess(text) {
  const head = text.slice(0, GUESSED);
  const lines = [];
  let line = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const letter of head) {
    if (letter === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (letter === "\n") {
      lines.push(line);
      line = { ",": 0, ";": 0, "\t": 0 };
    } else if (letter in line) line[letter]++;
  }
  if (!lines.length) lines.push(line);
  const worth = (one) => {
    const [first] = lines;
    const same = lines.filter((counts) => counts[one] === first[one]).length;
    return first[one] ? same / lines.length + first[one] / 1e6 : 0;
  };
  return DELIMITERS.reduce((best, one) => (worth(one) > worth(best) ? one : best));
}

/**
 * @param {string} text
 * @param {{rows?: number, columns?: number, delimiter?: string}} [options] what is returned at most
 * @returns {{rows: string[][], more: boolean}} more: there were more rows or columns than that
 */
export function parse(text, { rows: mostRows = 200, columns = 50, delimiter = guess(text) } = {}) {
  const special = new RegExp(`[\\r\\n${delimiter}]`, "g");
  const rows = [];
  let more = false;
  let row = [];
  let at = text.startsWith("\ufeff") ? 1 : 0;
  while (at < text.length) {
    if (rows.length === mostRows) return { rows, more: true };
    let field = "";
    if (text[at] === '"') {
      at++;
      for (;;) {
        const quote = text.indexOf('"', at);
        field += text.slice(at, quote < 0 ? undefined : quote);
        at = quote < 0 ? text.length : quote + 1;
        if (text[at] !== '"') break;
        field += '"';
        at++;
      }
    }
    special.lastIndex = at;
    const stop = special.exec(text)?.index ?? text.length;
    field += text.slice(at, stop); // also what stands behind a closing quote
    if (row.length < columns) row.push(field);
    else more = true;
    const ended = text[stop] !== delimiter;
    at = stop + 1;
    if (!ended && at < text.length) continue;
    if (!ended && row.length < columns) row.push(""); // the text ends with a delimiter
    if (text[stop] === "\r" && text[at] === "\n") at++;
    rows.push(row);
    row = [];
  }
  return { rows, more };
}
