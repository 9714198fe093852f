// What a line of a .gitignore means, as git means it: sandrun/ignoring.py in JavaScript.

const CLASSES = {
  alnum: "0-9A-Za-z", alpha: "A-Za-z", digit: "0-9", lower: "a-z", upper: "A-Z", space: "\\s",
  xdigit: "0-9A-Fa-f",
};

/** @typedef {{ignores: boolean, onlyFolders: boolean, byName: boolean, pattern: RegExp}} Rule */

/**
 * The rules of a file. To git a letter is a byte: lines and paths are taken as UTF-8.
 * @param {Iterable<string>} lines
 * @returns {Rule[]}
 */
export function rules(lines) {
  return [...lines].map(bytewise).map(rule).filter(Boolean);
}

/** A letter for each byte. */
const bytewise = (text) => Array.from(ENCODER.encode(text), (byte) => String.fromCharCode(byte)).join("");
const ENCODER = new TextEncoder();

/**
 * Whether the rules, of which the last that matches counts, name this path; null: nothing is said of it.
 * @param {Rule[]} given @param {string} path @param {boolean} isFolder
 */
export function says(given, path, isFolder) {
  const whole = bytewise(path), name = whole.slice(whole.lastIndexOf("/") + 1);
  for (let at = given.length - 1; at >= 0; at -= 1) {
    const { ignores, onlyFolders, byName, pattern } = given[at];
    if (onlyFolders && !isFolder) continue;
    if (pattern.test(byName ? name : whole)) return ignores;
  }
  return null;
}

function rule(written) {
  let line = written.replace(/\r$/, "").replace(/(?<!\\)((?:\\\\)*) +$/, "$1");
  if (!line || line.startsWith("#")) return null;
  const ignores = !line.startsWith("!");
  if (!ignores) line = line.slice(1);
  const onlyFolders = line.endsWith("/");
  if (onlyFolders) line = line.slice(0, -1);
  const pattern = patternOf(line.replace(/^\//, ""));
  return pattern && { ignores, onlyFolders, byName: !line.includes("/"), pattern };
}

// What is looked ahead for and then repeated is not given back: "[!]" and "[]" close nothing.
const TOKEN = new RegExp(
  "(?<deep>(?:^|(?<=/))\\*\\*+(?:/|$))|(?<stars>\\*+)|(?<one>\\?)" +
  "|\\[(?=(?<not>[!^]?))\\k<not>(?=(?<close>\\]?))\\k<close>(?<set>(?:\\[:\\w+:\\]|\\\\.|[^\\]\\\\])*)\\]" +
  "|\\\\(?<quoted>.)|(?<plain>[^\\[\\\\])",
  "sy",
);

/** Null: it can match nothing. */
function patternOf(text) {
  let made = "";
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const found = TOKEN.exec(text)?.groups;
    if (!found) return null;
    if (found.deep) made += found.deep.endsWith("/") ? "(?:.*/)?" : ".*";
    else if (found.stars) made += "[^/]*";
    else if (found.one) made += "[^/]";
    else if (found.set !== undefined) made += setOf(found.close + found.set, Boolean(found.not));
    else made += escaped(found.quoted ?? found.plain);
  }
  return made ? new RegExp(`^(?:${made})$`, "s") : null;
}

function setOf(text, isNegated) {
  let inner = "";
  for (const [, name, first, last] of text.matchAll(/\[:(\w+):\]|(\\.|.)(?:-(\\.|[^\]]))?/gs)) {
    if (name) inner += Object.hasOwn(CLASSES, name) ? CLASSES[name] : "";
    else if (!last) inner += escaped(first.at(-1));
    else { // of a range that runs backwards git takes the first
      const [begin, end] = [first.at(-1), last.at(-1)];
      inner += `${escaped(begin)}-${escaped(begin <= end ? end : begin)}`;
    }
  }
  if (isNegated) return `[^/${inner}]`;
  return inner ? `(?!/)[${inner}]` : "(?!)";
}

const escaped = (sign) => sign.replace(/[\\^$.*+?()[\]{}|/-]/, "\\$&");
