// The DSSE envelope around a receipt, as sandrun/envelope.py has it: bytes, and who has signed them.
// What they say is read only when a signature holds: nobody has to trust a parser before.

import { holds } from "./ed25519.js";
import { isWorkerId, publicKey, workerId } from "./key.js";
import { NotVerified, told } from "./refusal.js";
import { read } from "./statement.js";
import { fromBase64, fromJson, Malformed } from "./strict.js";

const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const PAYLOAD_BYTES = 64 * 2 ** 20;
const SIGNATURES = 16;

/**
 * @typedef {{payload: Uint8Array, signatures: {keyid: string, text: string, bytes: Uint8Array}[]}} Envelope
 * @typedef {import("./statement.js").Said & {signature: string, payload: Uint8Array}} Receipt
 */

/**
 * The receipt in an envelope, signed by one of `keys` (worker ids). Throws NotVerified.
 * @param {Uint8Array | string | object} envelope JSON, or the object that JSON is
 * @param {string[]} keys
 * @returns {Promise<Receipt>}
 */
export async function verified(envelope, keys) {
  const opened = opening(envelope);
  const pinned = new Map(keys.map(publicKey).map((key) => [workerId(key), key]));
  const signed = await signedBy(opened, pinned);
  let said;
  try {
    said = read(fromJson(opened.payload));
  } catch (error) {
    throw refusal(error, "What is signed is not a receipt: it");
  }
  if (!signed.has(said.worker)) {
    const [signer] = signed.keys();
    const sentence = `The receipt says that ${said.worker} ran the job, and ${signer} signed it.`;
    throw new NotVerified("worker", sentence);
  }
  return { ...said, signature: signed.get(said.worker), payload: opened.payload };
}

/**
 * @param {Uint8Array | string | object} envelope
 * @returns {Envelope}
 */
export function opening(envelope) {
  try {
    return opened(envelope);
  } catch (error) {
    throw refusal(error, "This is not a receipt: it");
  }
}

function refusal(error, about) {
  if (!(error instanceof Malformed)) return error;
  return new NotVerified("not_a_receipt", `${about} ${error.message}.`);
}

function opened(given) {
  let envelope = given;
  if (typeof given === "string" || given instanceof Uint8Array) {
    if (given.length > 2 * PAYLOAD_BYTES) throw new Malformed("is too large");
    envelope = fromJson(given);
  }
  if (!isObject(envelope)) throw new Malformed("is not a JSON object");
  for (const name of ["payload", "payloadType", "signatures"]) {
    if (!Object.hasOwn(envelope, name)) throw new Malformed(`has no ${name}`);
  }
  // The type is signed too; another one is another kind of message by the same key.
  if (envelope.payloadType !== PAYLOAD_TYPE) {
    throw new Malformed(`has the payloadType ${told(envelope.payloadType)}, and not ${PAYLOAD_TYPE}`);
  }
  const payload = decoded("payload", envelope.payload);
  if (payload.length > PAYLOAD_BYTES) {
    throw new Malformed(`is too large: its payload has more than ${PAYLOAD_BYTES} bytes`);
  }
  const found = envelope.signatures;
  if (!Array.isArray(found) || found.length < 1 || found.length > SIGNATURES) {
    throw new Malformed(`has no list of 1 to ${SIGNATURES} signatures`);
  }
  return { payload, signatures: found.map(signature) };
}

function signature(one) {
  if (!isObject(one) || !Object.hasOwn(one, "sig")) throw new Malformed('has a signature without "sig"');
  const bytes = decoded("signature", one.sig);
  if (bytes.length !== 64) throw new Malformed("has a signature that is not 64 bytes long");
  const keyid = Object.hasOwn(one, "keyid") && typeof one.keyid === "string" ? one.keyid : "";
  return { keyid, text: one.sig, bytes };
}

/** The signature of each pinned key that has signed it. Keyids and others' signatures count nothing. */
async function signedBy({ payload, signatures }, pinned) {
  if (!pinned.size) {
    throw new NotVerified("no_key", `No key is pinned to believe. ${claim(signatures)}`);
  }
  const head = new TextEncoder().encode(
    `DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `,
  );
  const message = new Uint8Array(head.length + payload.length);
  message.set(head);
  message.set(payload, head.length);
  const signed = new Map();
  for (const { text, bytes } of signatures) {
    for (const [worker, key] of pinned) {
      if (await holds(key, message, bytes)) signed.set(worker, text);
    }
  }
  if (signed.size) return signed;
  if (!signatures.some(({ keyid }) => pinned.has(keyid))) {
    throw new NotVerified("other_key", `No pinned key has signed this. ${claim(signatures)}`);
  }
  throw new NotVerified(
    "signature", "The signature does not hold: this is not what the pinned key has signed.",
  );
}

/** Only what has the form of a worker id is repeated. */
function claim(signatures) {
  const claimed = new Set(signatures.map(({ keyid }) => keyid).filter(isWorkerId));
  return `The receipt itself names ${[...claimed].join(" and ") || "nobody"}, which proves nothing.`;
}

function decoded(name, text) {
  try {
    return fromBase64(text);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new Malformed(`has a ${name} that ${error.message}`);
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
