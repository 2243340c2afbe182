// The verifier's core once more, in another language and sharing no code: whoever doubts the first asks the second.
// Of the steps of docs/protocol.md it runs 1 checkpoint, 2 inclusion, 3 openings, 4 keys, 6 order, 7 answer, 11 quota,
// 12 erasure, 13 witnesses, 14 time and 18 groups; of 5 consent who signed each version and that leaf and record say
// the same. Questions, decisions, certificates and the ledger need the rules' engine and stay with the first verifier.
//
//   node dist/verify.js BUNDLE TRUST      prints one JSON report; exit status 1 if anything does not hold
import { readFileSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";

import { Counts, isAgents, readAnswer } from "./answers.js";
import { MAX_BYTES, readBundle, type Bundle, type Leaf } from "./bundle.js";
import { Malformed, isObject, parseJson, spelled, type JsonObject } from "./json.js";
import { keyStatement, readVersion, type ConsentVersion, type ServiceKey } from "./signed.js";
import { Members, Tombstones, open, whyUnordered } from "./shown.js";
import {
  Invalid, fromB64u, leafHash, readCheckpoint, readKey, refuse, sha256, treeRoot, verifyInclusion, verifyWitnessed,
  type Checkpoint, type Key, type WitnessPolicy,
} from "./tree.js";

export const STEPS = {
  bundle: 0, checkpoint: 1, inclusion: 2, openings: 3, keys: 4, consent: 5, order: 6, answer: 7, quota: 11, erasure: 12, witnesses: 13, time: 14,
  groups: 18, listing: 19,
} as const;
export type Step = keyof typeof STEPS;

export interface Failure {
  step: number;
  leaf: number | null;
  detail: string;
}

export interface Report {
  leaves: number;
  checked: Partial<Record<Step, number>>;
  failures: Failure[];
}

interface Trust {
  log: Key;
  origin: string;
  operator: Buffer;
  witnesses: WitnessPolicy | undefined;
}

interface Event {
  index: number;
  kind: string;
  entry: Buffer;
  public: JsonObject;
  personal: JsonObject;
  body: Buffer | undefined;
}

const CHAINED = ["consent-request", "consent", "answer", "denial"];
const SKEW_S = 300;
const LAST_S = 2 ** 32;

class Evidence {
  readonly report: Report;
  readonly events: Event[] = [];
  readonly keys: ServiceKey[] = [];
  readonly versions = new Map<string, { index: number; version: ConsentVersion }[]>();
  readonly stones: Tombstones;
  unordered: Map<number, string> | undefined;
  readonly members: Members;

  constructor(
    readonly bundle: Bundle,
    readonly trust: Trust,
  ) {
    this.report = { leaves: bundle.leaves.length, checked: {}, failures: [] };
    this.stones = new Tombstones(bundle.records.values());
    this.members = new Members(bundle.records.values());
  }

  attempt(step: Step, leaf: number | null, check: () => void): void {
    this.report.checked[step] = (this.report.checked[step] ?? 0) + 1;
    try {
      check();
    } catch (error) {
      if (!(error instanceof Invalid || error instanceof Malformed)) throw error;
      this.report.failures.push({ step: STEPS[step], leaf, detail: error.message });
    }
  }

  isWhole(index: number): boolean {
    return index >= this.bundle.from && index < this.bundle.to;
  }

  ofKind(...kinds: string[]): Event[] {
    return this.events.filter((event) => kinds.includes(event.kind) && event.personal["consent"] !== undefined);
  }

  /** Say whether an event may stand unopened because an auditor did not choose its consent. */
  mayBeClosed(leaf: number, member = 0): boolean {
    return this.bundle.withheld.has("event") && !this.stones.has(leaf, member);
  }
}

/** Verify a bundle's bytes under the bytes of a trust file. */
export function verifyBundle(data: Uint8Array, trustFile: Uint8Array): Report {
  const trust = readTrust(parseJson(trustFile));
  let bundle: Bundle;
  try {
    bundle = readBundle(data);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return unreadable(error.message);
  }
  const evidence = new Evidence(bundle, trust);
  const { report } = evidence;
  const root: { checkpoint?: Checkpoint } = {};
  evidence.attempt("checkpoint", null, () => (root.checkpoint = readCheckpoint(bundle.checkpoint, trust.log, trust.origin)));
  const { checkpoint } = root;
  if (checkpoint === undefined) return report;
  for (const leaf of bundle.leaves) {
    evidence.attempt("inclusion", leaf.index, () =>
      verifyInclusion(leafHash(leaf.entry), leaf.index, checkpoint.size, leaf.path, checkpoint.root),
    );
  }
  if (report.failures.length) return report;
  verifyOpenings(evidence);
  verifyPeople(evidence);
  verifyAnswers(evidence);
  verifyGroups(evidence);
  verifyTimes(evidence);
  if (trust.witnesses) verifyWitnesses(evidence, checkpoint, trust.witnesses);
  return report;
}

function readTrust(record: JsonObject): Trust {
  const origin = spelled(record["origin"]);
  const { witnesses } = record;
  const policy = isObject(witnesses) ? (witnesses as unknown as WitnessPolicy) : undefined;
  return { log: readKey(spelled(record["log"]), 1), origin, operator: fromB64u(record["operator"], 32), witnesses: policy };
}

function verifyOpenings(evidence: Evidence): void {
  const { bundle } = evidence;
  const unopened: Leaf[] = [];
  for (const leaf of bundle.leaves) {
    evidence.attempt("openings", leaf.index, () => {
      const shown = open(leaf.entry, "public", leaf.public);
      const personal = leaf.personal && open(leaf.entry, "personal", leaf.personal);
      const kind = spelled(shown["kind"]);
      evidence.events.push({ index: leaf.index, kind, entry: leaf.entry, public: shown, personal: personal ?? {}, body: leaf.personal?.body });
      if (!personal && CHAINED.includes(kind) && evidence.isWhole(leaf.index)) unopened.push(leaf);
    });
  }
  const missing = firstMissing(bundle);
  evidence.attempt("openings", missing, () => {
    if (missing !== null) refuse(`The bundle claims to be whole but lacks leaf ${missing}.`);
  });
  for (const record of bundle.records.values()) {
    const statement = keyStatement(record);
    if (statement) evidence.attempt("keys", null, () => evidence.keys.push(statement(evidence.trust.operator)));
  }
  for (const leaf of unopened.filter(({ index }) => !evidence.mayBeClosed(index))) {
    evidence.attempt("erasure", leaf.index, () => verifyErased(evidence, leaf.index, 0, leaf.entry));
  }
  if (bundle.withheld.has("event")) {
    evidence.attempt("listing", null, () => refuse("Not every consent is opened: let the first verifier compare the listing."));
  }
}

function firstMissing(bundle: Bundle): number | null {
  let expected = bundle.from;
  for (const { index } of bundle.leaves) {
    if (index > expected) break;
    if (index === expected) expected += 1;
  }
  return expected < bundle.to ? expected : null;
}

function verifyErased(evidence: Evidence, leaf: number, member: number, entry: Buffer): void {
  const stones = evidence.events.filter(({ kind }) => kind === "tombstones");
  const groups = new Map(stones.map((event) => [event.index, event.public]));
  evidence.unordered ??= whyUnordered(stones, evidence.events.filter(({ kind }) => kind === "erasure"));
  evidence.stones.verify(leaf, member, entry, groups, evidence.unordered);
}

function verifyPeople(evidence: Evidence): void {
  for (const event of evidence.ofKind("consent")) {
    evidence.attempt("consent", event.index, () => {
      const record = evidence.bundle.records.get(spelled(event.personal["record"]));
      if (!record) return refuse("The bundle lacks the version that the leaf names, or it was altered.");
      const version = readVersion(record, evidence.keys);
      if (!agree(event.personal, version.personal) || !agree(event.public, version.public)) {
        refuse("The leaf and the signed version do not say the same.");
      }
      const consent = spelled(event.personal["consent"]);
      const known = evidence.versions.get(consent) ?? [];
      evidence.versions.set(consent, [...known, { index: event.index, version }]);
    });
  }
  for (const event of evidence.events.filter(({ kind }) => kind !== "denial" && CHAINED.includes(kind))) {
    if (event.body && event.personal["consent"] === undefined) {
      evidence.attempt("order", event.index, () => refuse("The event is about a consent and names none."));
    }
  }
  const last = new Map<string, Event>();
  for (const event of evidence.ofKind(...CHAINED)) {
    const consent = spelled(event.personal["consent"]);
    evidence.attempt("order", event.index, () => verifyPlace(evidence, event, last.get(consent)));
    last.set(consent, event);
  }
}

function verifyPlace(evidence: Evidence, event: Event, before: Event | undefined): void {
  const [number, prev] = [event.personal["consent_seq"], fromB64u(event.personal["prev"])];
  if (typeof number !== "number" || number < 1 || prev.length !== (number > 1 ? 32 : 0)) {
    return refuse("The event does not say which of its consent's it is, and what the one before was.");
  }
  if (!before && number > 1 && evidence.bundle.from === 0 && evidence.isWhole(event.index)) {
    refuse("The events of this consent before this one are withheld: the log is shown from its first leaf.");
  }
  if (before) {
    const [first, second] = [before.personal["consent_seq"], event.personal["consent_seq"]];
    if (typeof first !== "number" || typeof second !== "number" || second <= first) {
      return refuse("Events of one consent are not logged in the order of their numbers.");
    }
    if (second !== first + 1 && evidence.isWhole(before.index) && evidence.isWhole(event.index)) {
      refuse("An event of this consent is withheld between the one before and this one.");
    }
    if (second === first + 1 && event.personal["prev"] !== sha256(before.body ?? "").toString("base64url")) {
      refuse("The event does not name the one before it: one of the two was exchanged.");
    }
  }
  if (event.kind === "consent") return;
  const version = versionAt(evidence, event);
  if (event.personal["subject"] !== version.personal["subject"]) refuse("The event names another person than signed the consent.");
  if (event.kind !== "answer") return;
  if (!version.live) refuse("The answer is logged after the consent ended.");
  if (version.personal["version"] !== event.personal["version"]) refuse("The answer was given under a version that was no longer in force.");
}

function versionAt(evidence: Evidence, event: Event): ConsentVersion {
  const logged = evidence.versions.get(spelled(event.personal["consent"]))?.filter(({ index }) => index < event.index);
  return logged?.at(-1)?.version ?? refuse("No verified version of the consent is logged before this event.");
}

function verifyAnswers(evidence: Evidence): void {
  const { bundle } = evidence;
  const counts = new Counts();
  for (const event of evidence.ofKind("answer")) {
    if (!bundle.withheld.has("answer")) {
      evidence.attempt("answer", event.index, () => {
        const record = bundle.records.get(spelled(event.personal["record"]));
        if (!record) return refuse("The bundle lacks the answer that the leaf names, or it was altered.");
        const answer = readAnswer(record);
        if (!agree(event.personal, answer.personal) || !agree(event.public, answer.public)) {
          refuse("The answer's record and its leaf do not say the same.");
        }
      });
    }
    evidence.attempt("quota", event.index, () => {
      const { quota } = versionAt(evidence, event);
      const given = evidence.versions.get(spelled(event.personal["consent"]))?.[0];
      const fromStart = given?.version.number === 1 && evidence.isWhole(given.index);
      const agents = isAgents(bundle.records.get(spelled(event.personal["decision"])));
      const at = saidAt(event.personal, event.public) ?? refuse("The leaf does not say when its event happened.");
      counts.count(spelled(event.personal["consent"]), quota, agents, event.personal["quota_left"], at, event.public["period"], fromStart);
    });
  }
}

const agree = (half: JsonObject, said: JsonObject): boolean => Object.entries(said).every(([name, value]) => half[name] === value);

function saidAt(...parts: JsonObject[]): number | undefined {
  const at = parts.find((part) => part["at"] !== undefined)?.["at"];
  return typeof at === "number" && at >= 0 && at < LAST_S ? at : undefined;
}

function verifyGroups(evidence: Evidence): void {
  const groups = new Map(
    evidence.events.filter(({ kind, index }) => kind === "denials" && evidence.isWhole(index)).map((event) => [event.index, event]),
  );
  for (const index of new Set([...groups.keys(), ...evidence.members.groups()])) {
    const [group, members] = [groups.get(index), evidence.members.of(index)];
    evidence.attempt("groups", index, () => {
      if (!group) return refuse("Events are shown of a leaf that stands for none.");
      const placed = members.every((member, place) => member.place === place);
      if (!members.length || members.length !== group.public["count"] || !placed) refuse("Not all events of the leaf are shown, each once.");
      const root = treeRoot(members.map((member) => leafHash(member.entry)));
      if (group.public["root"] !== root.toString("base64url")) refuse("The events shown are not those that the leaf stands for.");
    });
    for (const member of group ? members : []) {
      evidence.attempt("groups", index, () => {
        if (open(member.entry, "public", member.public)["kind"] !== "denial") refuse("An event of a group of denials is none.");
        if (!member.personal) {
          if (!evidence.mayBeClosed(index, member.place + 1)) verifyErased(evidence, index, member.place + 1, member.entry);
          return;
        }
        const personal = open(member.entry, "personal", member.personal);
        const at = saidAt(personal, open(member.entry, "public", member.public));
        if (at === undefined) return refuse("The leaf does not say when its event happened.");
        if (personal["requester"] !== group?.personal["requester"] || at - (at % 60) !== group?.personal["minute"]) {
          refuse("A denial stands in the group of another company or minute.");
        }
      });
    }
  }
}

function verifyTimes(evidence: Evidence): void {
  let latest = 0;
  for (const event of evidence.ofKind("answer", "denial")) {
    const at = saidAt(event.personal, event.public);
    evidence.attempt("time", event.index, () => {
      if (at === undefined) return refuse("The leaf does not say when its event happened.");
      if (at < latest - SKEW_S) refuse("The event was dated back, or inserted later.");
    });
    latest = Math.max(latest, at ?? 0);
  }
}

function verifyWitnesses(evidence: Evidence, checkpoint: Checkpoint, policy: WitnessPolicy): void {
  const { bundle, trust } = evidence;
  evidence.attempt("witnesses", null, () => {
    if (!bundle.witnessed) return refuse("No witnessed checkpoint came with the bundle.");
    const latest = evidence.events.reduce((newest, event) => {
      return Math.max(newest, saidAt(event.public) ?? 0, saidAt(event.personal) ?? 0);
    }, 0);
    const seen = readCheckpoint(bundle.witnessed.note, trust.log, trust.origin);
    verifyWitnessed(seen, bundle.witnessed.proof, checkpoint, policy, latest);
  });
}

function unreadable(detail: string): Report {
  return { leaves: 0, checked: {}, failures: [{ step: STEPS.bundle, leaf: null, detail }] };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [, , bundle, trust] = process.argv;
  if (bundle === undefined || trust === undefined) {
    process.stderr.write("usage: node verify.js BUNDLE TRUST\n");
    process.exitCode = 2;
  } else {
    const tooLarge = statSync(bundle).size > MAX_BYTES;
    const report = tooLarge ? unreadable("The bundle is too large.") : verifyBundle(readFileSync(bundle), readFileSync(trust));
    process.stdout.write(`${JSON.stringify(report)}\n`);
    process.exitCode = report.failures.length ? 1 : 0;
  }
}
