// Steps 14 and 15: whether what a log tells fits together, beyond each leaf by itself.
import { readManifest } from "./certificate.js";
import { isKeyStatement, readEnvelope } from "./envelope.js";
import { SKEW_S, saidAt, timeOf, type Event, type Evidence } from "./evidence.js";
import { agree, spelled } from "./json.js";
import { COMPANY, readJws, verifyJws } from "./jws.js";
import { isSubjectErasure } from "./ordered.js";
import { readCompany, type Company } from "./question.js";
import { readPolicySet } from "./rules.js";
import { isMember, isTombstone } from "./shown.js";
import { refuse, sha256 } from "./tree.js";

export function reconcile(evidence: Evidence): void {
  verifyTimes(evidence);
  for (const event of [...evidence.of("key"), ...evidence.of("manifest")]) evidence.attempt("records", event.index, () => verifyTold(evidence, event));
  verifyVersions(evidence);
  const named = namedRecords(evidence);
  for (const [digest, record] of evidence.bundle.records) {
    if (isKeyStatement(record) || isTombstone(record) || isMember(record) || isSubjectErasure(record)) continue;
    evidence.attempt("records", null, () => {
      if (!named.has(digest)) refuse(`No leaf names the record ${digest}: it was decided or signed, but never logged.`);
    });
  }
}

function verifyTimes(evidence: Evidence): void {
  let { latest } = evidence.carried;
  for (const event of evidence.chained("answer", "denial")) {
    evidence.attempt("time", event.index, () => {
      if (timeOf(event) < latest - SKEW_S) refuse("The event was dated back, or inserted later.");
    });
    latest = Math.max(latest, saidAt(event) ?? 0);
  }
}

/** Check that a leaf about a key or a model says what its record says. */
function verifyTold(evidence: Evidence, event: Event): void {
  if (event.kind === "manifest") {
    const { digest } = readManifest(readEnvelope(evidence.record(event.public, "record")).payload);
    if (!agree(event.public, { model: digest })) refuse("The leaf says something else about its model than the record that it names.");
    return;
  }
  const key = evidence.keys.get(spelled(event.public["record"])) ?? refuse("The bundle lacks the key statement that the leaf names, or the operator did not sign it.");
  const said = { name: key.name, epoch: key.epoch, not_before: key.notBefore, public_key_sha256: sha256(key.key).toString("base64url") };
  if (!agree(event.public, said)) refuse("The leaf says something else about its key than the record that it names.");
}

/** Check that no version of the rules, or of a company's records, is left out. */
function verifyVersions(evidence: Evidence): void {
  const rules = evidence.of("policy-set");
  for (const event of rules) evidence.attempt("records", event.index, () => verifyRules(evidence, event));
  if (evidence.claimsWhole) {
    for (const [place, before] of rules.entries()) {
      const event = rules[place + 1];
      if (event) evidence.attempt("records", event.index, () => verifyFollows(before, event));
    }
  }
  const newest = new Map<string, Company>();
  for (const event of evidence.of("company")) evidence.attempt("records", event.index, () => verifyCompany(evidence, event, newest));
  for (const [company, said] of newest) evidence.attempt("records", null, () => verifyNewest(evidence, company, said));
}

function verifyRules(evidence: Evidence, event: Event): void {
  const { version, predecessor } = readPolicySet(evidence.record(event.public, "policy_set"));
  if (!agree(event.public, { version, predecessor })) refuse("The leaf says another version or predecessor of its rules than they state themselves.");
}

function verifyFollows(before: Event, event: Event): void {
  const [version, last] = [event.public["version"], before.public["version"]];
  const follows = typeof version === "number" && typeof last === "number" && version === last + 1;
  if (!follows || event.public["predecessor"] !== before.public["policy_set"]) refuse("The rules do not follow those that were in force before.");
}

function verifyCompany(evidence: Evidence, event: Event, newest: Map<string, Company>): void {
  const company = spelled(event.public["company"]);
  const jws = readJws(evidence.companyRecord(event), COMPANY);
  const [said, before] = [readCompany(jws, company), newest.get(company)];
  if (event.public["version"] !== said.version) refuse("The leaf says another version of the company's record than that states itself.");
  const expected = (before?.version ?? 0) + 1;
  if (said.version !== expected) refuse(`The company's record should have version ${expected}: one before it is left out.`);
  if (before) verifyJws(jws, before.key); // else the service put another key in the company's place
  newest.set(company, said);
}

function verifyNewest({ carried }: Evidence, company: string, { version }: Company): void {
  if (version < (carried.companies.get(company) ?? 0)) refuse(`The company ${company} had a later record in a part before this one.`);
  carried.companies.set(company, version);
}

/** The digests that leaves, and the consents among the records, name. */
function namedRecords(evidence: Evidence): Set<unknown> {
  const named = new Set<unknown>();
  for (const event of [...evidence.grouped, ...evidence.events]) {
    for (const value of [...Object.values(event.public), ...Object.values(event.personal)]) named.add(value);
  }
  for (const versions of evidence.versions.values()) for (const { version } of versions) named.add(version.request);
  return named;
}
