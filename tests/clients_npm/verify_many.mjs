// Verify every bundle of a folder with the second verifier: node verify_many.mjs DIST FOLDER prints one report a line.
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, folder] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(resolve(dist, name)).href);
const { verifyBundle } = await load("verifier.js");
const { readTrust } = await load("evidence.js");
for (const name of readdirSync(folder).filter((file) => file.endsWith(".bundle")).sort()) {
  const trust = readTrust(readFileSync(join(folder, name.replace(".bundle", ".trust"))));
  process.stdout.write(`${JSON.stringify(verifyBundle(readFileSync(join(folder, name)), trust))}\n`);
}
