// Versions of consents: what each says, that one may follow another, and that none grants more than was asked.
import { verifySigned, type Envelope } from "./envelope.js";
import { Fields } from "./fields.js";
import { parseJson, type Json, type JsonObject } from "./json.js";
import { readTerms, isNarrower, type Terms } from "./terms.js";
import { refuse, sha256 } from "./tree.js";

export const CONSENT = "twinvault/consent/v1";
const SCHEMA = "twinvault-consent/1";
const LANGUAGE = /^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/;
const STATES: ReadonlyMap<string, string> = new Map([
  ["given", "dpv:ConsentGiven"],
  ["narrowed", "dpv:ConsentGiven"],
  ["renewed", "dpv:RenewedConsentGiven"],
  ["withdrawn", "dpv:ConsentWithdrawn"],
  ["revoked", "dpv:ConsentRevoked"],
  ["returned", "dpv:ConsentRevoked"],
  ["expired", "dpv:ConsentExpired"],
  ["invalidated", "dpv:ConsentInvalidated"],
]);
const EVENTS: ReadonlySet<string> = new Set(STATES.keys());
const LIVE = ["given", "narrowed", "renewed"];

export interface Version {
  /** What the halves of its leaf must say. */
  personal: JsonObject;
  public: JsonObject;
  consent: string;
  number: number;
  seq: number;
  prev: string;
  event: string;
  at: number;
  key: Buffer;
  subject: string;
  terms: Terms;
  notice: string;
  request: string;
  digest: string;
  live: boolean;
}

/** Read one version; who signed it is not checked. */
export function readVersion(envelope: Envelope): Version {
  const said = new Fields(parseJson(envelope.payload), "consent");
  said.exactly("schema_version", SCHEMA);
  said.exactly("lawful_basis", "dpv:ExplicitlyExpressedConsent");
  const notice = said.object("privacy_notice");
  const [consent, number, event] = [b64u(said.binary("record_id", 16)), said.integer("version", 1), said.word("event_type", EVENTS)];
  const [at, key, terms] = [said.time("event_time"), said.binary("principal_key", 32), readTerms(said.mapping("terms"))];
  const subject = b64u(sha256(key).subarray(0, 16));
  const shown = `${b64u(notice.binary("sha256", 32))} ${notice.text("language", LANGUAGE)}`;
  notice.end();
  const version: Version = {
    personal: { consent, version: number, subject, grantee: terms.grantee, event, at },
    public: { consent_kind: terms.kind, event_state: STATES.get(event) ?? "" },
    consent, number, event, at, key, subject, terms, notice: shown,
    seq: said.integer("consent_seq", 1),
    prev: b64u(said.binary("prev", 0, 32)),
    request: b64u(said.binary("request_sha256", 0, 32)),
    digest: b64u(envelope.digest),
    live: LIVE.includes(event),
  };
  said.exactly("pii_principal_id", subject);
  said.exactly("event_state", STATES.get(event) ?? "");
  said.exactly("entity_id", isByPerson(version) ? subject : event === "returned" ? terms.grantee : "operator");
  said.end();
  const first = number === 1;
  if ((event === "given") !== first || (version.prev === "") !== first) refuse("Version 1, and only version 1, is given and has no predecessor.");
  if (!version.request && terms.kind === "company") refuse("A company consent names no request.");
  if (event === "returned" && terms.kind !== "company") refuse("Only a company gives a consent back.");
  return version;
}

const b64u = (data: Buffer): string => data.toString("base64url");

/** Say whether only the person can cause the event of a version. */
export const isByPerson = ({ event, live }: Version): boolean => live || event === "withdrawn";

export const verifyPerson = (envelope: Envelope, version: Version): JsonObject => verifySigned(envelope, CONSENT, version.key);

/** Check that one version may follow another. */
export function verifySuccessor(following: Version, before: Version): void {
  if (!before.live && before.event !== "expired") refuse("The consent was ended for good and has a further version.");
  if (following.number !== before.number + 1 || following.prev !== before.digest) refuse("The version does not follow the one before.");
  if (identity(following) !== identity(before)) refuse("Consent id, pairwise key, kind and grantee never change.");
  if (following.seq <= before.seq || following.at < before.at) refuse("consent_seq must grow and event_time must not go back.");
  if (following.event === "narrowed") {
    if (!before.live || following.request !== before.request || !isNarrower(following.terms, before.terms)) {
      refuse("Narrowing keeps a live consent inside its previous terms.");
    }
  } else if (following.event !== "renewed" && matter(following) !== matter(before)) refuse("Ending a consent keeps its terms, notice and request.");
  if (following.event === "expired" && following.at < before.terms.notAfter) refuse("A consent expires only once its window is over.");
}

const identity = ({ consent, key, terms }: Version): string => [consent, b64u(key), terms.kind, terms.grantee].join(" ");
const matter = ({ terms, notice, request }: Version): string => [terms.spelled, notice, request].join("\n");

/** Check that a version grants no more than the request, by the claims that the company signed, asks for. */
export function verifyGrant(version: Version, claims: Json): void {
  const said = new Fields(claims, "consent request");
  said.exactly("schema_version", SCHEMA);
  said.binary("request_id", 16);
  const terms = readTerms(said.mapping("terms"));
  said.time("issued_at");
  said.end();
  if (!isNarrower(version.terms, terms)) refuse("The consent grants more than was asked.");
}
