// What is wrong with a receipt.

/** A receipt does not prove what was asked of it. `kind` is a word of sandrun/errors.py. */
export class NotVerified extends Error {
  /** @param {string} kind @param {string} sentence */
  constructor(kind, sentence) {
    super(sentence);
    this.kind = kind;
  }
}

/** A value in a sentence: short, and nothing in it is invisible or turns the line around. */
export function told(value) {
  if (value !== null && typeof value === "object") return "something else";
  const text = JSON.stringify(value) ?? "nothing";
  return (text.length > 100 ? `${text.slice(0, 99)}…` : text).replace(/[\p{C}\p{Z}]/gu, (letter) =>
    letter === " " ? letter : `\\u{${letter.codePointAt(0).toString(16)}}`);
}
