// The verifier once more, in another language and sharing no code: whoever doubts the first asks the second. It runs
// every step of docs/protocol.md; decisions are made again by Cedar's own JavaScript build.
import { verifyAnswers } from "./asked.js";
import { readBundle, type Leaf } from "./bundle.js";
import { isKeyStatement, readKeyStatement } from "./envelope.js";
import { CHAINED, Carried, Evidence, STEPS, emptyReport, saidAt, type Report, type Trust } from "./evidence.js";
import { verifyGroups } from "./groups.js";
import { Malformed, spelled } from "./json.js";
import { verifyLedger } from "./ledger.js";
import { verifyLegacies } from "./legacy.js";
import { verifyPeople } from "./people.js";
import { reconcile } from "./reconcile.js";
import { open } from "./shown.js";
import { leafHash, readCheckpoint, refuse, verifyInclusion, verifyWitnessed, type Checkpoint, type WitnessPolicy } from "./tree.js";

/** Verify the bytes of a bundle, or of one part of an audit, whose `carried` is brought up to date. */
export function verifyBundle(data: Uint8Array, trust: Trust, carried = new Carried()): Report {
  let evidence: Evidence;
  try {
    evidence = new Evidence(readBundle(data), trust, carried);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return unreadable(error.message);
  }
  const { bundle, report } = evidence;
  evidence.attempt("checkpoint", null, () => (evidence.checkpoint = readCheckpoint(bundle.checkpoint, trust.log, trust.origin)));
  const { checkpoint } = evidence;
  if (!checkpoint) return report;
  for (const leaf of bundle.leaves) {
    evidence.attempt("inclusion", leaf.index, () =>
      verifyInclusion(leafHash(leaf.entry), leaf.index, checkpoint.size, leaf.path, checkpoint.root),
    );
  }
  if (report.failures.length) return report;
  verifyOpenings(evidence, checkpoint);
  verifyPeople(evidence);
  verifyAnswers(evidence);
  verifyGroups(evidence);
  reconcile(evidence);
  verifyLegacies(evidence);
  verifyLedger(evidence);
  if (trust.witnesses) verifyWitnesses(evidence, checkpoint, trust.witnesses);
  if (!report.failures.length) evidence.handOn();
  return report;
}

/** The report of a file that is not what it should be: it counts nothing as checked. */
export const unreadable = (detail: string): Report => ({
  ...emptyReport(),
  failures: [{ step: STEPS.bundle, name: "bundle", leaf: null, detail }],
});

function verifyOpenings(evidence: Evidence, checkpoint: Checkpoint): void {
  const { bundle, carried, trust } = evidence;
  for (const leaf of bundle.leaves) evidence.attempt("openings", leaf.index, () => openLeaf(evidence, leaf));
  if (carried.from !== undefined) evidence.attempt("openings", null, () => verifyContinues(evidence, checkpoint));
  const missing = firstMissing(evidence);
  evidence.attempt("openings", missing, () => {
    if (missing !== null) refuse(`The bundle claims to be whole but lacks leaf ${missing}.`);
  });
  for (const record of bundle.records.values()) {
    if (!isKeyStatement(record)) continue;
    evidence.attempt("keys", null, () => {
      const key = readKeyStatement(record, trust.operator);
      evidence.keys.set(key.digest, key);
    });
  }
  for (const { leaf, shown } of evidence.unopened) {
    if (!evidence.mayBeClosed(leaf.index)) evidence.attempt("erasure", leaf.index, () => evidence.verifyErased(leaf.index, 0, leaf.entry, shown));
  }
  if (bundle.withheld.has("event") && !carried.tally) {
    evidence.attempt("listing", null, () => refuse("The bundle does not open every consent: only beside the engagement's listing does it prove anything."));
  }
}

function openLeaf(evidence: Evidence, leaf: Leaf): void {
  const shown = open(leaf.entry, "public", leaf.public);
  const personal = leaf.personal && open(leaf.entry, "personal", leaf.personal);
  const kind = spelled(shown["kind"]);
  evidence.add({ index: leaf.index, kind, entry: leaf.entry, public: shown, personal: personal ?? {}, body: leaf.personal?.body });
  if (!personal && CHAINED.includes(kind) && evidence.isWhole(leaf.index)) evidence.unopened.push({ leaf, shown });
}

function verifyContinues({ bundle, carried }: Evidence, now: Checkpoint): void {
  if (bundle.from !== carried.to) refuse(`The part begins at leaf ${bundle.from} where the one before it ended at ${carried.to}.`);
  const seen = carried.checkpoint;
  if (seen && (now.size < seen.size || (now.size === seen.size && !now.root.equals(seen.root)))) {
    refuse("The part is of an older log than the one before it, or of another.");
  }
}

function firstMissing({ bundle }: Evidence): number | null {
  let expected = bundle.from;
  for (const { index } of bundle.leaves) {
    if (index > expected) break;
    if (index === expected) expected += 1;
  }
  return expected < bundle.to ? expected : null;
}

function verifyWitnesses(evidence: Evidence, checkpoint: Checkpoint, policy: WitnessPolicy): void {
  const { bundle, trust } = evidence;
  evidence.attempt("witnesses", null, () => {
    if (!bundle.witnessed) return refuse("No witnessed checkpoint came with the bundle.");
    const latest = evidence.events.reduce((newest, event) => {
      const halves = [{ ...event, personal: {} }, { ...event, public: {} }];
      return Math.max(newest, ...halves.map((half) => saidAt(half) ?? 0));
    }, 0);
    const seen = readCheckpoint(bundle.witnessed.note, trust.log, trust.origin);
    verifyWitnessed(seen, bundle.witnessed.proof, checkpoint, policy, latest);
  });
}
