// What project.js takes of the folders named, once as a file input gives them and once as a drop does.
import { File as NodeFile } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

globalThis.File ??= NodeFile; // of Node 18
const { fromDrop, fromInput } = await import("../../frontend/static/frontend/project.js");

function* filesBelow(folder, shown) {
  for (const found of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, found.name), name = `${shown}/${found.name}`;
    if (found.isDirectory()) {
      yield* filesBelow(path, name);
    } else {
      const file = new File([readFileSync(path)], found.name);
      Object.defineProperty(file, "webkitRelativePath", { value: name });
      yield file;
    }
  }
}

function entry(path, isDirectory) {
  return {
    name: basename(path),
    isDirectory,
    file: (resolve) => resolve(new File([readFileSync(path)], basename(path))),
    createReader: () => {
      const all = readdirSync(path, { withFileTypes: true })
        .map((one) => entry(join(path, one.name), one.isDirectory()));
      return { readEntries: (resolve) => resolve(all.splice(0, 100)) };
    },
  };
}

const told = ({ files, skipped }) => [
  files.map(({ path, size }) => [path, size]), skipped.map(({ path, why }) => [path, why]),
];
const answers = [];
for (const folder of JSON.parse(readFileSync(0, "utf8"))) {
  const items = [{ kind: "file", webkitGetAsEntry: () => entry(folder, true) }];
  answers.push([
    told(await fromInput(filesBelow(folder, basename(folder)))), told(await fromDrop({ items })),
  ]);
}
console.log(JSON.stringify(answers));
