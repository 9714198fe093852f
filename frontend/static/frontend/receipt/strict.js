// JSON and base64 that can be read in one way only, as sandrun/strict.py has it. JSON.parse takes the
// last of two equal keys, rounds large numbers and lets half characters through: what is signed must
// mean the same to all who read it, so none of that is accepted.

/** What is wrong, to be read after the name of what was read: "is not UTF-8". */
export class Malformed extends Error {}

const DEEP = 500; // levels; a receipt has 5
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /true|false|null|NaN|-?Infinity/y;
const WORDS = new Map([["true", true], ["false", false], ["null", null]]);
const HALF = /\p{Surrogate}/u; // with "u" whole characters are none

/**
 * The value of JSON; its objects have no prototype, so that "__proto__" is a key like others.
 * @param {Uint8Array | string} data
 * @param {{decimals?: boolean}} [options] numbers with a fraction only with `decimals`
 * @returns {unknown}
 */
export function fromJson(data, { decimals = false } = {}) {
  return new Reader(typeof data === "string" ? data : textOf(data), decimals).whole();
}

/** @param {Uint8Array} bytes */
function textOf(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Malformed("is not UTF-8");
  }
}

class Reader {
  constructor(text, decimals) {
    this.text = text;
    this.decimals = decimals;
    this.at = 0;
    this.depth = 0;
  }

  whole() {
    const value = this.value();
    if (this.next() !== "") this.fail();
    return value;
  }

  /** The character that comes behind spaces; "" at the end. */
  next() {
    while (" \t\n\r".includes(this.text[this.at] ?? "x")) this.at += 1;
    return this.text[this.at] ?? "";
  }

  value() {
    const first = this.next();
    if (first === '"') return this.string();
    if (first !== "{" && first !== "[") return this.scalar();
    if (++this.depth > DEEP) throw new Malformed("is nested too deeply");
    this.at += 1;
    const value = first === "{" ? this.object() : this.list();
    this.depth -= 1;
    return value;
  }

  object() {
    const found = Object.create(null);
    if (this.ends("}")) return found;
    for (;;) {
      if (this.next() !== '"') this.fail();
      const name = this.string();
      if (Object.hasOwn(found, name)) {
        throw new Malformed(`has the key ${JSON.stringify(name.slice(0, 100))} twice`);
      }
      if (!this.ends(":")) this.fail();
      found[name] = this.value();
      if (this.ends("}")) return found;
      if (!this.ends(",")) this.fail();
    }
  }

  list() {
    const found = [];
    if (this.ends("]")) return found;
    for (;;) {
      found.push(this.value());
      if (this.ends("]")) return found;
      if (!this.ends(",")) this.fail();
    }
  }

  ends(sign) {
    if (this.next() !== sign) return false;
    this.at += 1;
    return true;
  }

  string() {
    let end = this.at + 1; // by hand: a string may have a hundred million characters
    for (let code; (code = this.text.charCodeAt(end)) !== 0x22; end += code === 0x5c ? 2 : 1) {
      if (!(code >= 0x20)) this.fail(); // NaN is the end
    }
    let value;
    try {
      value = JSON.parse(this.text.slice(this.at, end + 1));
    } catch {
      this.fail();
    }
    if (HALF.test(value)) throw new Malformed("contains half a character (a lone surrogate)");
    this.at = end + 1;
    return value;
  }

  scalar() {
    const word = this.match(WORD);
    if (word === null) return this.number();
    if (!WORDS.has(word)) throw new Malformed(`has ${word}, which is not JSON`);
    return WORDS.get(word);
  }

  number() {
    const digits = this.match(NUMBER) ?? this.fail();
    const number = Number(digits);
    if (/[.eE]/.test(digits)) {
      if (!this.decimals) throw new Malformed("has a number that is no integer");
      if (!Number.isFinite(number)) throw new Malformed("has a number that is too large");
      return number;
    }
    if (!Number.isSafeInteger(number)) throw new Malformed("has an integer of 2**53 or more");
    return number || 0; // -0 is 0
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return null;
    this.at = pattern.lastIndex;
    return found[0];
  }

  fail() {
    throw new Malformed(`is not JSON (at character ${this.at})`);
  }
}

/**
 * The bytes of standard, padded base64, of which no other text is the encoding.
 * @param {unknown} text
 * @returns {Uint8Array}
 */
export function fromBase64(text) {
  if (typeof text !== "string") throw new Malformed("is not text");
  let binary;
  try {
    binary = atob(text); // lets spaces, missing padding and idle bits through
  } catch {
    throw new Malformed("is not base64");
  }
  if (btoa(binary) !== text) throw new Malformed("is not the standard base64 of its bytes");
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** @param {Uint8Array} bytes */
export function toBase64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
