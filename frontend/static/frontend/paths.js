// Names of files that a server takes in an archive, as sandbox/members.py has them, and what is wrong
// with others.

const NAME_BYTES = 255; // of one component
const PATH_BYTES = 1024;
const DEPTH = 64;

const bytesOf = (text) => new TextEncoder().encode(text).length;

/** A name as part of a sentence: short, and all of it visible. */
export function quoted(name) {
  const letters = Array.from(name);
  const short = letters.length > 60 ? [...letters.slice(0, 59), "…"] : letters;
  return `'${short.map((letter) => (isVisible(letter) ? letter : "?")).join("")}'`;
}

/** Whether all letters of a name are seen as what they are. */
export const isPlain = (name) => Array.from(name).every(isVisible);

const isVisible = (letter) => letter === " " || !/[\p{C}\p{Z}]/u.test(letter);

/**
 * Why a server would refuse a file of this name, as a sentence; "" when it would not. Stricter than it in
 * one thing: the names of no folder that it takes away, "." and nothing, are no names here.
 * @param {string} path
 */
export function faultOf(path) {
  const name = `The file name ${quoted(path)}`;
  const parts = path.split("/");
  if (/\p{Surrogate}/u.test(path)) return `${name} is not Unicode.`;
  if (bytesOf(path) > PATH_BYTES || parts.some((part) => bytesOf(part) > NAME_BYTES)) {
    return `${name} is too long.`;
  }
  if (parts.includes("..")) return `${name} leads out of the work directory.`;
  if (parts.includes("") || parts.includes(".") || Array.from(parts[0])[1] === ":") {
    return `${name} is not the relative path of a file.`;
  }
  if (parts.length > DEPTH) return `${name} lies more than ${DEPTH} folders deep.`;
  if (/[\\\0]/.test(path)) return `${name} holds a backslash or NUL.`;
  return "";
}

/**
 * The same for all files of an upload, of which each has its own place.
 * @param {string[]} paths
 */
export function faultOfPaths(paths) {
  const fault = paths.map(faultOf).find(Boolean);
  if (fault) return fault;
  const taken = new Set(paths);
  if (taken.size !== paths.length) {
    const twice = paths.find((path, index) => paths.indexOf(path) !== index);
    return `There are two files named ${quoted(twice)}.`;
  }
  for (const path of paths) {
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const folder = path.slice(0, end);
      if (taken.has(folder)) return `${quoted(folder)} is both a file and a folder.`;
    }
  }
  return "";
}
