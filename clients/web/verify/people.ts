// Steps 5 and 6: what people signed, and that the events of each consent are all there, in their order.
import { readEnvelope } from "./envelope.js";
import { CONSENT, isByPerson, readVersion, verifyGrant, verifyPerson, verifySuccessor } from "./consent.js";
import { CHAINED, consentOf, type Event, type Evidence } from "./evidence.js";
import { agree } from "./json.js";
import { REQUEST, readJws } from "./jws.js";
import { verifyBoundEvent } from "./ordered.js";
import { fromB64u, refuse, sha256 } from "./tree.js";

export function verifyPeople(evidence: Evidence): void {
  for (const event of evidence.chained("consent")) evidence.attempt("consent", event.index, () => verifyVersion(evidence, event));
  for (const event of ["consent-request", "consent", "answer"].flatMap((kind) => evidence.of(kind))) {
    if (event.body && event.personal["consent"] === undefined) {
      evidence.attempt("order", event.index, () => refuse("The event is about a consent and names none."));
    }
  }
  const last = new Map(evidence.carried.last);
  for (const event of evidence.chained(...CHAINED)) {
    if (event.index < evidence.carried.to) continue; // what is shown again was looked at in an earlier part
    evidence.attempt("order", event.index, () => verifyPlace(evidence, event, last.get(consentOf(event))));
    last.set(consentOf(event), event);
  }
}

function verifyVersion(evidence: Evidence, event: Event): void {
  const envelope = readEnvelope(evidence.record(event.personal, "record"));
  const version = readVersion(envelope);
  if (isByPerson(version)) verifyPerson(envelope, version);
  else evidence.verifyService(envelope, CONSENT, "service", version.at);
  if (!agree(event.personal, version.personal) || !agree(event.public, version.public)) refuse("The leaf and the signed version do not say the same.");
  const request = evidence.bundle.records.get(version.request);
  if (request) verifyGrant(version, readJws(request.toString("latin1"), REQUEST).claims);
  const known = evidence.versions.get(consentOf(event)) ?? [];
  const before = known.at(-1)?.version;
  if (before && version.number === before.number + 1) verifySuccessor(version, before);
  evidence.versions.set(consentOf(event), [...known, { index: event.index, version }]);
}

function verifyPlace(evidence: Evidence, event: Event, before: Event | undefined): void {
  verifyBoundEvent(event.public, event.personal);
  const [number, prev] = [event.personal["consent_seq"], fromB64u(event.personal["prev"])];
  if (typeof number !== "number" || number < 1 || prev.length !== (number > 1 ? 32 : 0)) {
    return refuse("The event does not say which of its consent's it is, and what the one before was.");
  }
  if (!before && number > 1 && evidence.begin === 0 && evidence.isLookedAt(event.index)) {
    refuse("The events of this consent before this one are withheld: the log is shown from its first leaf.");
  }
  if (before) verifyFollows(evidence, before, event);
  if (event.kind === "consent") return;
  const version = evidence.versionAt(event);
  if (event.personal["subject"] !== version.subject) refuse("The event names another person than signed the consent.");
  if (event.kind !== "answer") return;
  if (!version.live) refuse("The answer is logged after the consent ended.");
  if (version.number !== event.personal["version"]) refuse("The answer was given under a version that was no longer in force.");
}

function verifyFollows(evidence: Evidence, before: Event, event: Event): void {
  const [first, second] = [before.personal["consent_seq"], event.personal["consent_seq"]];
  if (typeof first !== "number" || typeof second !== "number" || second <= first) {
    return refuse("Events of one consent are not logged in the order of their numbers.");
  }
  if (second !== first + 1 && evidence.isLookedAt(before.index) && evidence.isLookedAt(event.index)) {
    refuse("An event of this consent is withheld between the one before and this one.");
  }
  if (second === first + 1 && event.personal["prev"] !== sha256(before.body ?? "").toString("base64url")) {
    refuse("The event does not name the one before it: one of the two was exchanged.");
  }
}
