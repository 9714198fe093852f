// What verify.js says of every case that stands on standard input: for each the kinds of what is wrong.
// With the word "noble" there is no crypto.subtle, as on a page that came over plain http.
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

const crypto = process.argv[2] === "noble" ? { subtle: undefined } : webcrypto;
Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
const { verify } = await import("../../frontend/static/frontend/verify.js");

const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const told = [];
for (const { envelope, bytes: raw, logs, outputs, ...asked } of JSON.parse(readFileSync(0, "utf8"))) {
  const { ok, steps } = await verify({
    ...asked,
    envelope: raw === undefined ? envelope : bytes(raw),
    logs: Object.fromEntries(Object.entries(logs ?? {}).map(([name, data]) => [name, bytes(data)])),
    outputs: (outputs ?? []).map(({ data, ...one }) => ({ ...one, bytes: bytes(data) })),
  });
  told.push({ ok, steps });
}
process.stdout.write(JSON.stringify(told));
