// An audit: a folder of parts in the order of the log, verified one after the other, as one.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

import { MAX_BYTES, hashes } from "./bundle.js";
import { Carried, attempt, emptyReport, type Report, type Step, type Trust } from "./evidence.js";
import { Malformed, parseJson } from "./json.js";
import { Tally, type Listing } from "./listing.js";
import { refuse, verifyConsistency } from "./tree.js";
import { unreadable, verifyBundle } from "./verifier.js";

const FORMAT = "twinvault-audit/v1";
const MAX_PARTS = 100_000;

interface Index {
  first: number;
  end: number;
  growth: Buffer[][];
}

/** Verify the file of a bundle. */
export function verifyFile(file: string, trust: Trust, carried?: Carried): Report {
  let data: Buffer;
  try {
    if (statSync(file).size > MAX_BYTES) return unreadable("The bundle is too large.");
    data = readFileSync(file);
  } catch {
    return unreadable(`The file ${file} cannot be read.`);
  }
  return verifyBundle(data, trust, carried);
}

/** Verify the parts of an audit, and its listing if there is one; a part that cannot be read, or does not hold, ends it. */
export function verifyAudit(folder: string, trust: Trust, listing?: Listing): Report {
  const report = emptyReport();
  let index: Index;
  try {
    index = readIndex(readFileSync(join(folder, "audit.json")));
  } catch (error) {
    return unreadable(error instanceof Malformed ? error.message : `The folder ${folder} holds no audit: audit.json cannot be read.`);
  }
  const tally = listing && new Tally(listing);
  const carried = new Carried(tally);
  for (const [number, proof] of index.growth.entries()) {
    const part = join(folder, `part-${String(number).padStart(6, "0")}.bundle`);
    if (!existsSync(part)) return unreadable(`The folder ${folder} holds no whole audit: it lacks ${part}.`);
    const before = carried.checkpoint;
    add(report, verifyFile(part, trust, carried));
    if (!report.failures.length && before) {
      attempt(report, "checkpoint", null, () => verifyConsistency(before, carried.checkpoint ?? before, proof));
    }
    if (report.failures.length) return report;
  }
  if (index.growth.length && (carried.from !== index.first || carried.to !== index.end)) {
    attempt(report, "openings", null, () => refuse(`The audit claims the leaves from ${index.first} to ${index.end}, but its parts do not.`));
  }
  tally?.verify(report, carried);
  return report;
}

function readIndex(data: Buffer): Index {
  const record = parseJson(Buffer.from(data.toString().trim()));
  const { format, first, end, growth } = record;
  const shaped = typeof first === "number" && typeof end === "number" && Array.isArray(growth) && growth.length <= MAX_PARTS;
  if (format !== FORMAT || !shaped) throw new Malformed(`The folder holds no audit of the format ${FORMAT}.`);
  return { first, end, growth: growth.map((proof) => hashes(proof, 32)) };
}

function add(total: Report, part: Report): void {
  total.leaves += part.leaves;
  for (const kind of ["checked", "withheld"] as const) {
    for (const [step, count] of Object.entries(part[kind]) as [Step, number][]) total[kind][step] = (total[kind][step] ?? 0) + count;
  }
  for (const [author, count] of Object.entries(part.erased)) total.erased[author] = (total.erased[author] ?? 0) + count;
  for (const failure of part.failures) total.failures.push(failure);
}
