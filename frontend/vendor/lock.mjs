// Takes out of package-lock.json what no install needs and where addresses stand: who asks for money.
import { readFileSync, writeFileSync } from "node:fs";

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
for (const one of Object.values(lock.packages)) delete one.funding;
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
