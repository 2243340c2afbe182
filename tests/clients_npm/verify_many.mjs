// Verify every bundle, and every audit, of a folder with the second verifier: node verify_many.mjs DIST FOLDER prints one report a line.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, folder] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(resolve(dist, name)).href);
const { verifyBundle } = await load("verifier.js");
const { verifyAudit } = await load("audit.js");
const { readListing } = await load("listing.js");
const { readTrust } = await load("evidence.js");
for (const trustFile of readdirSync(folder).filter((file) => file.endsWith(".trust")).sort()) {
  const trust = readTrust(readFileSync(join(folder, trustFile)));
  const [bundle, audit, listing] = [".bundle", ".audit", ".listing"].map((ending) => join(folder, trustFile.replace(".trust", ending)));
  const report = existsSync(audit) ? verifyAudit(audit, trust, existsSync(listing) ? readListing(readFileSync(listing)) : undefined) : verifyBundle(readFileSync(bundle), trust);
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
