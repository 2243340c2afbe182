// Step 17: the steps of a legacy, held against what owner and executors signed. Only they are shown these steps: an
// auditor's bundle holds their public halves, and there is nothing here to look at.
import { Frames, readEnvelope, verifySigned, type Envelope } from "./envelope.js";
import { SKEW_S, timeOf, type Event, type Evidence } from "./evidence.js";
import { DAY_S, readOwnerKey, readPlan, readSignOfLife, readStatement, type PlanTerms } from "./person.js";
import { cosignedAt, fromB64u, leafHash, readCheckpoint, refuse, sha256, verifyInclusion, type Checkpoint, type WitnessPolicy } from "./tree.js";

const LEGACY = ["legacy-plan", "legacy-claim", "legacy-force", "legacy-open", "legacy-veto"];
const ORDERS = ["freeze", "profile"];
const SLACK_S = 3_600; // witnesses are asked every few seconds, if they are there
const EARLY = "The executors' statement was signed before the owner's waiting period had passed.";
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** How far the legacy of one vault has come. */
class Course {
  last: Event | undefined;
  version = 0;
  plan = Buffer.alloc(32).toString("base64url");
  terms: PlanTerms | undefined;
  claim: Event | undefined;
  byExecutors = false;
  inForce = false;
  readonly keys = new Set<string>();
  frozen = false;
  /** Whether the plan, which began by itself, froze what nobody else had frozen. */
  froze = false;
  /** Where a restored service, which forgot the course of the plan, said again that the person has died. */
  died: Event | undefined;

  constructor(readonly vault: string) {}
}

export function verifyLegacies(evidence: Evidence): void {
  const courses = new Map<string, Course>();
  for (const event of evidence.events) {
    const ordered = event.kind === "erasure" && event.public["author"] === "executors";
    if (!event.body || !(ordered || LEGACY.includes(event.kind) || ORDERS.includes(event.kind))) continue;
    evidence.attempt("legacy", event.index, () => {
      const vault = fromB64u(event.personal["vault"], 16).toString("base64url");
      const course = courses.get(vault) ?? new Course(vault);
      courses.set(vault, course);
      if (ordered) verifyErasure(evidence, event, course);
      else if (ORDERS.includes(event.kind)) verifyOrder(evidence, event, course);
      else verifyStep(evidence, event, course);
    });
  }
}

function verifyStep(evidence: Evidence, event: Event, course: Course): void {
  verifyChained(event, course.last);
  if (event.kind === "legacy-plan") verifyPlan(evidence, event, course);
  else if (event.kind === "legacy-claim") verifyClaim(evidence, event, course);
  else if (event.kind === "legacy-force") verifyForce(evidence, event, course);
  else if (event.kind === "legacy-open") verifyOpen(evidence, event, course);
  else verifyVeto(evidence, event, course);
  course.last = event;
}

const numberOf = (event: Event): number => {
  const { seq } = event.personal;
  return typeof seq === "number" ? seq : refuse("The step has no number.");
};

function verifyChained(event: Event, before: Event | undefined): void {
  const prev = before ? sha256(before.body ?? "").toString("base64url") : "";
  if (numberOf(event) !== (before ? numberOf(before) + 1 : 1) || event.personal["prev"] !== prev) {
    refuse("A step of this legacy is withheld before this one, or one of the two was exchanged.");
  }
  if (before && timeOf(event) < timeOf(before) - SKEW_S) refuse("The step is dated before the one that it follows.");
}

/** The owner's key when a step was logged; the vault's id follows from the genesis. */
function ownerKey(evidence: Evidence, event: Event, vault: string): Buffer {
  const mine = evidence.events.filter(
    ({ kind, index, personal }) => ["vault-genesis", "succession"].includes(kind) && index < event.index && personal["vault"] === vault,
  );
  return readOwnerKey(mine.map((one) => evidence.record(one.personal, "record")), vault);
}

function verifyPlan(evidence: Evidence, event: Event, course: Course): void {
  const envelope = readEnvelope(evidence.record(event.personal, "record"));
  const { version, prev, terms } = readPlan(envelope, ownerKey(evidence, event, course.vault), course.vault);
  const [said, digest] = [event.personal, envelope.digest.toString("base64url")];
  const tells = said["version"] === version && said["plan"] === digest && said["sealed"] === (terms?.sealed.length ?? 0);
  if (!tells || version !== course.version + 1 || prev !== course.plan) refuse("The plan does not follow the one before, or its leaf says something else.");
  const key = terms?.legacyKey.toString("base64url");
  if (key !== undefined && course.keys.has(key)) refuse("The plan has the legacy key of an earlier one, which may be in one hand by now.");
  [course.version, course.plan, course.terms, course.claim, course.inForce] = [version, digest, terms, undefined, false];
  if (key !== undefined) course.keys.add(key);
}

function verifyClaim(evidence: Evidence, event: Event, course: Course): void {
  const { terms, plan, vault } = course;
  if (event.personal["record"] === plan) return verifyAlone(event, course);
  if (!terms || (course.claim && course.byExecutors)) return refuse("Something is declared without a plan, or under one that was used already.");
  const statement = readStatement(readEnvelope(evidence.record(event.personal, "record")), terms.legacyKey, vault, plan);
  if (statement.act !== "declare" || event.personal["claim"] !== statement.claim || event.personal["plan"] !== plan) {
    refuse("The declaration and its leaf do not say the same.");
  }
  verifyUntil(event, terms);
  const age = timeOf(event) - statement.issuedAt;
  if (age < -SKEW_S || age > DAY_S) refuse("The declaration is dated long before or after it was signed.");
  [course.claim, course.byExecutors, course.inForce] = [event, true, false];
}

function verifyAlone(event: Event, course: Course): void {
  const [{ terms }, since] = [course, event.personal["inactive_since"]];
  if (!terms || !terms.inactiveS || course.claim) return refuse("The waiting period began by itself where the owner's plan does not say so.");
  if (typeof since !== "number" || timeOf(event) < since + terms.inactiveS) refuse("The waiting period began by itself before the owner's plan says.");
  verifyUntil(event, terms);
  [course.claim, course.byExecutors, course.inForce] = [event, false, false];
}

function verifyUntil(event: Event, terms: PlanTerms): void {
  if (event.personal["until"] !== timeOf(event) + terms.waitingS) refuse("The declaration takes effect at another time than the owner's plan says.");
}

function claimed(event: Event, { claim }: Course): Event {
  const same = claim && ["claim", "plan"].every((name) => event.personal[name] === claim.personal[name]);
  return claim && same ? claim : refuse("The step is about another declaration than the one that waits, or about none.");
}

const isSameRecord = (event: Event, other: Event): boolean => event.personal["record"] === other.personal["record"];

const isAfter = (claim: Event, at: number): boolean => {
  const { until } = claim.personal;
  return typeof until === "number" && at >= until;
};

function verifyForce(evidence: Evidence, event: Event, course: Course): void {
  const claim = claimed(event, course);
  if (course.inForce || !isSameRecord(event, claim)) refuse("What takes effect took effect already, or is not what was declared.");
  if (!isAfter(claim, timeOf(event))) refuse("The declaration took effect before the owner's waiting period had passed.");
  if (evidence.trust.witnesses) verifyWaited(evidence, event, claim, course, evidence.trust.witnesses);
  course.inForce = true;
}

/** Hold the service's own dates, which it could have made up together with executors, against the witnesses'. */
function verifyWaited(evidence: Evidence, event: Event, claim: Event, course: Course, policy: WitnessPolicy): void {
  const { log } = evidence.trust;
  if (event.personal["witnessed"] === undefined) refuse("No witness saw how long the declaration waited, and the trusted keys name witnesses.");
  const frames = new Frames(evidence.record(event.personal, "witnessed"), 2 ** 17);
  const [named, begunNote, overNote, path] = [frames.frame(), frames.frame(), frames.frame(), [] as Buffer[]];
  while (frames.left) path.push(frames.frame());
  if (named.toString("latin1") !== "twinvault-waited/1") refuse("What the step names is no proof of how long it waited.");
  const begun = readCheckpoint(decode(begunNote), log, log.name);
  verifyInclusion(leafHash(claim.entry), claim.index, begun.size, path, begun.root);
  const over = readCheckpoint(decode(overNote), log, log.name);
  // The first was there when the slowest of a quorum had cosigned it, the second not before the fastest of one had.
  const by = timesOf(begun, policy)[policy.quorum - 1] ?? 0n;
  const after = timesOf(over, policy).reverse()[policy.quorum - 1] ?? 0n;
  if (after - by < BigInt((course.terms?.waitingS ?? 0) - SLACK_S)) refuse("By the witnesses' clocks the declaration waited for less than the owner's plan says.");
}

const timesOf = (checkpoint: Checkpoint, policy: WitnessPolicy): bigint[] =>
  [...cosignedAt(checkpoint, policy).values()].sort((one, other) => Number(one - other));

function decode(note: Buffer): string {
  try {
    return UTF8.decode(note);
  } catch {
    return refuse("The proof of how long the declaration waited is altered.");
  }
}

/** Check what was done to a vault on somebody else's word than its owner's: it follows from a plan in force. */
function verifyOrder(evidence: Evidence, event: Event, course: Course): void {
  const envelope = readEnvelope(evidence.record(event.personal, "record"));
  const freezes = event.kind === "freeze" && event.personal["frozen"] === 1;
  const died = event.kind === "profile" && event.personal["deceased"] === 1;
  const kind = envelope.type.split("/")[1] ?? "";
  if (ORDERS.includes(kind)) verifySigned(envelope, envelope.type, ownerKey(evidence, event, course.vault));
  else if (kind === "sign-in") verifyAlive(evidence, event, course);
  else if (event.personal["again"] === 1 && (freezes || died)) {
    // A restored database forgot the plan's course. It only forbids, which the service could do anyway.
    if (died) course.died = event;
  } else if (kind === "executors" || kind === "legacy") verifyOrdered(event, course, envelope, freezes);
  else refuse("Something was ordered about this vault by a record that can order nothing.");
  if (event.kind === "freeze") {
    const byPlan = event.personal["record"] === course.plan;
    course.froze = freezes && byPlan && (course.froze || !course.frozen);
    course.frozen = freezes;
  }
}

function verifyOrdered(event: Event, course: Course, envelope: Envelope, freezes: boolean): void {
  const { claim, terms } = course;
  if (!claim || !terms || !course.inForce) return refuse("Something was ordered about this vault before the declaration was in force.");
  const answers = course.byExecutors && terms.choice === "answer";
  if (isSameRecord(event, claim)) {
    if (freezes === answers || (event.kind === "freeze" && !(freezes || course.froze))) refuse("The declaration did something else than the owner's plan says.");
    return;
  }
  const statement = readStatement(envelope, terms.legacyKey, course.vault, course.plan);
  if (!freezes || statement.act !== "freeze" || statement.claim !== claim.personal["claim"]) refuse("The executors' statement and its leaf do not say the same.");
  if (!isAfter(claim, statement.issuedAt)) refuse(EARLY);
}

function verifyAlive(evidence: Evidence, event: Event, course: Course): void {
  const ended = course.last?.kind === "legacy-veto" && isSameRecord(event, course.last);
  if (event.kind !== "profile" || event.personal["deceased"] === 1 || !(ended || course.died)) refuse("The profile was changed by a sign-in that ended nothing.");
  if (!ended && course.died) verifySignOfLife(evidence, event, course.vault, course.died);
  course.died = undefined;
}

/** Check that executors could order to erase everything, and did. */
function verifyErasure(evidence: Evidence, event: Event, course: Course): void {
  const { claim, terms } = course;
  if (!claim || !terms || !course.inForce || !course.byExecutors) return refuse("Something was ordered about this vault before the declaration was in force.");
  if (terms.choice !== "erase") refuse("The owner's plan does not let executors erase.");
  const statement = readStatement(readEnvelope(evidence.record(event.personal, "order")), terms.legacyKey, course.vault, course.plan);
  const { erasure, whole } = event.personal;
  if (statement.act !== "erase" || erasure !== statement.claim || claim.personal["claim"] !== statement.claim || whole !== 1) {
    refuse("The executors' statement and its leaf do not say the same.");
  }
  if (!isAfter(claim, statement.issuedAt)) refuse(EARLY);
}

function verifyOpen(evidence: Evidence, event: Event, course: Course): void {
  const [claim, { terms }, named] = [claimed(event, course), course, event.personal["consents"]];
  if (!course.inForce || !course.byExecutors || !terms) return refuse("What was sealed in advance was opened before the declaration was in force.");
  const statement = readStatement(readEnvelope(evidence.record(event.personal, "record")), terms.legacyKey, course.vault, course.plan);
  if (statement.act !== "open" || statement.claim !== event.personal["claim"]) refuse("The executors' statement and its leaf do not say the same.");
  if (!isAfter(claim, statement.issuedAt)) refuse(EARLY);
  const isNamed = Array.isArray(named) && named.every((name) => typeof name === "string" && terms.sealed.includes(name));
  if (!isNamed) refuse("A consent was given that the owner's plan does not name.");
}

function verifyVeto(evidence: Evidence, event: Event, course: Course): void {
  verifySignOfLife(evidence, event, course.vault, claimed(event, course));
  [course.claim, course.inForce, course.froze] = [undefined, false, false];
  if (course.byExecutors) course.terms = undefined;
}

function verifySignOfLife(evidence: Evidence, event: Event, vault: string, before: Event): void {
  const envelope = readEnvelope(evidence.record(event.personal, "record"));
  const expiry = readSignOfLife(envelope, ownerKey(evidence, event, vault), vault, evidence.trust.issuer);
  if (expiry < timeOf(before)) refuse("The sign of life is older than the declaration.");
}
