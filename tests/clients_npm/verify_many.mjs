// Verify every bundle of a folder with the second verifier: node verify_many.mjs DIST FOLDER prints one report a line.
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, folder] = process.argv.slice(2);
const { verifyBundle } = await import(pathToFileURL(resolve(dist, "verify.js")).href);
for (const name of readdirSync(folder).filter((file) => file.endsWith(".bundle")).sort()) {
  const trust = readFileSync(join(folder, name.replace(".bundle", ".trust")));
  process.stdout.write(`${JSON.stringify(verifyBundle(readFileSync(join(folder, name)), trust))}\n`);
}
