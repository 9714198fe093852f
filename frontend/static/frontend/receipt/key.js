// Keys by which receipts are believed, as sandrun/key.py has it: which texts are one, and which of
// those are safe. Browsers take keys in whose name anybody can sign; so what they are is computed here.

import { NotVerified, told } from "./refusal.js";
import { fromBase64, Malformed, toBase64 } from "./strict.js";

/** The keys of small order, in hex; a test compares them with docs/receipts/small-order.txt. */
export const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0000000000000000000000000000000000000000000000000000000000000080",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000080",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]);

/** Whether it has the form of a worker id: the base64 of 32 bytes. */
export const isWorkerId = (text) => typeof text === "string" && /^[A-Za-z0-9+/]{43}=$/.test(text);

/** A worker id as it is spoken of: its two ends. */
export const shortened = (worker) => `${worker.slice(0, 6)}…${worker.slice(-5, -1)}`;

/** @param {Uint8Array} key */
export const workerId = (key) => toBase64(key);

/**
 * The 32 bytes of a worker id. Throws NotVerified("bad_key").
 * @param {unknown} worker
 * @returns {Uint8Array}
 */
export function publicKey(worker) {
  if (good.has(worker)) return good.get(worker);
  let key;
  try {
    key = fromBase64(worker);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    refuse(worker, `it ${error.message}; a worker id is 44 characters of base64`);
  }
  if (key.length !== 32) refuse(worker, `it has ${key.length} bytes, and an Ed25519 key has 32`);
  if (SMALL_ORDER.has(hex(key))) refuse(worker, "it is of small order: anybody can sign in its name");
  // Also other texts for the same point, and keys with a part of small order, about whose signatures
  // libraries differ.
  if (!isInGroup(key)) refuse(worker, "it is no point of the group, or not written in the one right way");
  good.set(worker, key);
  return key;
}

const good = new Map(); // the sums below take some milliseconds, and a page asks for few keys, often

function refuse(worker, why) {
  throw new NotVerified("bad_key", `The key ${told(worker)} cannot be used: ${why}.`);
}

/** @param {Uint8Array} bytes */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

// ---- the curve of RFC 8032; nothing here is secret, so it need not take the same time for all

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = modulo(-121665n * power(121666n, P - 2n));
const ROOT = power(2n, (P - 1n) / 4n); // of -1

/** Whether it is a point, written in the one right way, that a multiple of the base point can be. */
function isInGroup(key) {
  const point = decoded(key);
  if (!point) return false;
  let sum = [0n, 1n, 1n, 0n];
  for (const bit of ORDER.toString(2)) {
    sum = added(sum, sum);
    if (bit === "1") sum = added(sum, point);
  }
  return sum[0] === 0n && sum[1] === sum[2];
}

/** [X, Y, Z, T] of RFC 8032, 5.1.4; null: there is no such point. */
function decoded(key) {
  const number = BigInt(`0x${hex(key.slice().reverse())}`);
  const sign = number >> 255n, y = number & (2n ** 255n - 1n);
  if (y >= P) return null;
  const square = modulo((y * y - 1n) * power(D * y * y + 1n, P - 2n));
  let x = power(square, (P + 3n) / 8n);
  if (modulo(x * x) !== square) x = modulo(x * ROOT);
  if (modulo(x * x) !== square || (x === 0n && sign)) return null;
  if ((x & 1n) !== sign) x = P - x;
  return [x, y, 1n, modulo(x * y)];
}

function added([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = (y1 - x1) * (y2 - x2), b = (y1 + x1) * (y2 + x2);
  const c = modulo(2n * D * modulo(t1 * t2)), d = 2n * z1 * z2;
  const e = modulo(b - a), f = modulo(d - c), g = modulo(d + c), h = modulo(b + a);
  return [modulo(e * f), modulo(g * h), modulo(f * g), modulo(e * h)];
}

function modulo(number) {
  const rest = number % P;
  return rest < 0n ? rest + P : rest;
}

function power(base, exponent) {
  let result = 1n, square = modulo(base);
  for (let rest = exponent; rest; rest >>= 1n) {
    if (rest & 1n) result = modulo(result * square);
    square = modulo(square * square);
  }
  return result;
}
