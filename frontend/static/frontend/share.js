// Code in a link's fragment, which browsers send to no server. Whoever opens a link has not written it:
// what comes out is bounded, and of the form that goes in, or nothing.

import { faultOfPaths, isPlain } from "./paths.js";

const VERSION = 1;
const BEGIN = "#code=";
const LONGEST = 8 * 1024; // characters; longer links break in chats and mails
const INFLATED = 2 ** 20; // bytes; a fragment of the longest size could be 6 MB of zeros
const FILES = 100;
const ARGUMENTS = 1000;

/**
 * @typedef {{interpreter: string, files: {path: string, text: string}[], args: string[],
 *   stdin: string}} Shared
 */

/**
 * The fragment, with "#code=" before it; null: it would be longer than a link can be.
 * @param {Shared} shared
 * @returns {Promise<string | null>}
 */
export async function encode({ interpreter, files, args, stdin }) {
  const pairs = files.map(({ path, text }) => [path, text]);
  const json = JSON.stringify({ v: VERSION, interpreter, files: pairs, args, stdin });
  const bytes = new TextEncoder().encode(json);
  if (bytes.length > INFLATED) return null;
  const packed = await through(new CompressionStream("deflate-raw"), bytes, Infinity);
  let binary = "";
  for (const byte of packed) binary += String.fromCharCode(byte);
  const text = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return BEGIN.length + text.length > LONGEST ? null : BEGIN + text;
}

/**
 * What is in a fragment; null: nothing that `encode` has made.
 * @param {string} fragment as location.hash has it
 * @returns {Promise<Shared | null>}
 */
export async function decode(fragment) {
  if (!fragment.startsWith(BEGIN) || fragment.length > LONGEST) return null;
  const text = fragment.slice(BEGIN.length);
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return null;
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const packed = Uint8Array.from(binary, (sign) => sign.charCodeAt(0));
    const bytes = await through(new DecompressionStream("deflate-raw"), packed, INFLATED);
    return checked(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    return null;
  }
}

/** All that comes out of the stream. Throws when it is more than `most` bytes, and then reads no more. */
async function through(stream, bytes, most) {
  const writer = stream.writable.getWriter();
  const written = writer.write(bytes).then(() => writer.close()).catch(() => {}); // the reader hears it too
  const pieces = [];
  let size = 0;
  const reader = stream.readable.getReader();
  for (let next; !(next = await reader.read()).done;) {
    pieces.push(next.value);
    size += next.value.length;
    if (size > most) {
      await reader.cancel();
      throw new RangeError("too large");
    }
  }
  await written;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

const isText = (value) => typeof value === "string" && !/\p{Surrogate}/u.test(value);
const isList = (value, most) => Array.isArray(value) && value.length <= most;

/** As it is known to be; null: it is something else. */
function checked(found) {
  const { v, interpreter, files, args, stdin } = found ?? {};
  if (v !== VERSION || !isText(interpreter) || !/^[\w.+-]{0,64}$/.test(interpreter)) return null;
  if (!isList(args, ARGUMENTS) || !args.every(isText) || !isText(stdin)) return null;
  if (!isList(files, FILES) || !files.length) return null;
  if (!files.every((file) => isList(file, 2) && file.length === 2 && file.every(isText))) return null;
  const paths = files.map(([path]) => path);
  if (faultOfPaths(paths) || !paths.every(isPlain)) return null;
  return { interpreter, files: files.map(([path, text]) => ({ path, text })), args, stdin };
}
