// Bundles entries/*.js into the folder named, with MANIFEST.json and THIRD_PARTY_LICENSES.txt: each
// tells only of packages that have bytes in a bundle. The same lock gives the same bytes anywhere.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const to = process.argv[2];
const lock = JSON.parse(await readFile("package-lock.json", "utf8")).packages;

const packages = new Map();
async function describe(folder) {
  if (!packages.has(folder)) {
    const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    packages.set(folder, { name, version, licence: license, integrity: lock[folder].integrity });
  }
  return packages.get(folder);
}

const bundles = [];
await mkdir(to, { recursive: true });
for (const file of (await readdir("entries")).sort()) {
  const { metafile, outputFiles } = await build({
    entryPoints: [join("entries", file)],
    bundle: true,
    charset: "utf8",
    format: "esm",
    legalComments: "none",
    logLevel: "warning",
    metafile: true,
    minify: true,
    target: "es2022",
    write: false,
  });
  const [{ inputs }] = Object.values(metafile.outputs);
  const folders = new Set();
  for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
    const folder = path.match(/^node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];
    if (folder && bytesInOutput) folders.add(folder);
  }
  const inside = await Promise.all([...folders].sort().map(describe));
  const names = inside.map(({ name, version }) => `${name} ${version}`).join(", ");
  const code = `/* ${names}; licences: THIRD_PARTY_LICENSES.txt */\n${outputFiles[0].text}`;
  await writeFile(join(to, file), code);
  bundles.push({
    file,
    bytes: Buffer.byteLength(code),
    sha256: createHash("sha256").update(code).digest("hex"),
    packages: inside,
  });
}
await writeFile(join(to, "MANIFEST.json"), JSON.stringify({ bundles }, null, 2) + "\n");

const texts = [];
for (const folder of [...packages.keys()].sort()) {
  const { name, version, licence } = packages.get(folder);
  const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file));
  if (!files.length) throw new Error(`${name} comes without the text of its licence`);
  for (const file of files.sort()) {
    const text = (await readFile(join(folder, file), "utf8")).replaceAll("\r\n", "\n");
    texts.push(`${name} ${version} (${licence})\n\n${text.trim()}\n`);
  }
}
await writeFile(join(to, "THIRD_PARTY_LICENSES.txt"), texts.join(`\n${"-".repeat(80)}\n\n`));
