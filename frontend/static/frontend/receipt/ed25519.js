// Signatures and digests: by the browser where it can, else by the vendored noble. Pages on plain http
// of another machine than this have no crypto.subtle, and older browsers no Ed25519 in it.

import { hex } from "./key.js";

/**
 * Whether the signature of the message is by this key, which must be a good one (key.js).
 * @param {Uint8Array} key @param {Uint8Array} message @param {Uint8Array} signature
 * @returns {Promise<boolean>}
 */
export async function holds(key, message, signature) {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) {
    try {
      const known = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
      return await subtle.verify({ name: "Ed25519" }, known, signature, message);
    } catch {
      // It knows no Ed25519.
    }
  }
  const { verify } = await import("../vendor/noble-ed25519.js");
  return verify(signature, message, key);
}

/**
 * SHA-256 in hex.
 * @param {Uint8Array} bytes
 * @returns {Promise<string>}
 */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) return hex(new Uint8Array(await subtle.digest("SHA-256", bytes)));
  const noble = await import("../vendor/noble-ed25519.js");
  return hex(noble.sha256(bytes));
}
