// The command:
//
//   node dist/verify.js BUNDLE TRUST [LISTING]
//
// prints one JSON report of a bundle, or of the folder of an audit and of the listing that its consents were chosen from.
//
// Exit status 0 if everything that was checked holds, 1 if something does not or cannot be read, 2 without keys.
import { readFileSync, statSync } from "node:fs";

import { verifyAudit, verifyFile } from "./audit.js";
import { STEPS, readTrust, type Report, type Trust } from "./evidence.js";
import { Malformed } from "./json.js";
import { readListing } from "./listing.js";
import { unreadable } from "./verifier.js";

const [, , bundle, trustFile, listingFile, ...more] = process.argv;
if (bundle === undefined || trustFile === undefined || more.length) {
  process.stderr.write("usage: node verify.js BUNDLE TRUST [LISTING] (keys in a bundle prove nothing: name a trust file)\n");
  process.exitCode = 2;
} else {
  const trust = trusted(trustFile);
  if (trust) show(verify(bundle, trust, listingFile));
}

function verify(path: string, trust: Trust, listing: string | undefined): Report {
  try {
    const chosenFrom = listing === undefined ? undefined : readListing(readFileSync(listing));
    return isFolder(path) ? verifyAudit(path, trust, chosenFrom) : verifyFile(path, trust);
  } catch (error) {
    if (error instanceof Malformed) return unreadable(error.message);
    if (error instanceof Error && "code" in error) return unreadable(`A file cannot be read: ${error.message}`);
    throw error;
  }
}

function trusted(file: string): Trust | undefined {
  try {
    return readTrust(readFileSync(file));
  } catch (error) {
    process.stderr.write(`verify: The trust file cannot be used: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
    return undefined;
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function show(report: Report): void {
  const inOrder = (counts: object): object => Object.fromEntries(Object.keys(STEPS).flatMap((step) => (step in counts ? [[step, counts[step as never]]] : [])));
  const { leaves, checked, withheld, failures, erased } = report;
  process.stdout.write(`${JSON.stringify({ leaves, checked: inOrder(checked), withheld: inOrder(withheld), erased, failures })}\n`);
  process.exitCode = failures.length ? 1 : 0;
}
