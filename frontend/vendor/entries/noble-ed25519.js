// Signatures and hashes where the browser has no crypto.subtle: a page over plain http.
import { hashes, verify as verifyWith } from "@noble/ed25519";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

hashes.sha512 = sha512;

// As RFC 8032 has it. The package's own default, ZIP 215, takes more encodings for one key.
export const verify = (signature, message, publicKey) =>
  verifyWith(signature, message, publicKey, { zip215: false });
export { sha256, sha512 };
