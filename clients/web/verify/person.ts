// What an owner signs about the vault itself, and what executors state: genesis, successions, plans, statements.
import { keyId, readEnvelope, verifySigned, type Envelope } from "./envelope.js";
import { Fields } from "./fields.js";
import { isSomething, parseJson, type Json } from "./json.js";
import { fromB64u, readPublicKey, refuse, sha256 } from "./tree.js";

export const DAY_S = 86_400;
const NO_PREV = Buffer.alloc(32).toString("base64url");
const ZONE = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/;
const CHOICES = new Set(["freeze", "erase", "answer"]);
const ACTS = new Set(["declare", "freeze", "erase", "open"]);
const REASON = /^.{0,200}$/su;

/** Return the newest owner key of a vault, from its genesis and successions in their order. */
export function readOwnerKey(records: Buffer[], vault: string): Buffer {
  const [first, ...successions] = records.map(readEnvelope);
  if (!first) return refuse("No genesis shows whose vault this is.");
  const genesis = new Fields(verifyOwn(first, "twinvault/genesis/v1"), "genesis");
  let [key, next, prev] = [genesis.publicKey("owner_key"), genesis.binary("next_owner_key_hash", 32), first.digest];
  genesis.integer("created_at");
  verifyZone(genesis.text("time_zone"));
  const profile = genesis.object("profile");
  for (const name of ["minor", "guardian_ok", "deceased"]) profile.integer(name, 0, 1);
  profile.end();
  genesis.end();
  if (keyId(first.payload).toString("base64url") !== vault) refuse("The genesis is another vault's.");
  for (const record of successions) {
    const said = new Fields(verifyOwn(record, "twinvault/succession/v1"), "succession");
    key = said.publicKey("owner_key");
    if (!sha256(key).equals(next)) refuse("The succession is not by the key that the record before it committed to.");
    const follows = said.binary("vault", 16).toString("base64url") === vault && said.binary("prev", 32).equals(prev);
    if (!follows) refuse("The succession is about another vault or does not follow its newest record.");
    [next, prev] = [said.binary("next_owner_key_hash", 32), record.digest];
    said.end();
  }
  return key;
}

/** Return a record that is signed by the owner key that it names. */
function verifyOwn(envelope: Envelope, type: string): Json {
  return verifySigned(envelope, type, readPublicKey(parseJson(envelope.payload)["owner_key"]));
}

function verifyZone(name: string): void {
  if (!ZONE.test(name)) refuse("The time zone is not a name of the IANA database.");
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
  } catch {
    refuse("The time zone is not a name of the IANA database.");
  }
}

export interface PlanTerms {
  legacyKey: Buffer;
  waitingS: number;
  inactiveS: number;
  choice: string;
  sealed: string[];
}

export interface Plan {
  version: number;
  prev: string;
  terms: PlanTerms | undefined;
}

/** Return a version of a plan that the vault's owner signed. */
export function readPlan(envelope: Envelope, owner: Buffer, vault: string): Plan {
  const said = new Fields(verifySigned(envelope, "twinvault/executors/v1", owner), "plan");
  if (said.binary("vault", 16).toString("base64url") !== vault) refuse("A record belongs to another vault.");
  const [version, prev] = [said.integer("version", 1), said.binary("prev", 32).toString("base64url")];
  if ((version === 1) !== (prev === NO_PREV)) refuse("A record's version and previous hash contradict each other.");
  said.integer("issued_at");
  const terms = said.mapping("terms");
  said.end();
  return { version, prev, terms: isSomething(terms) ? readPlanTerms(new Fields(terms, "plan's terms")) : undefined };
}

function readPlanTerms(said: Fields): PlanTerms {
  const [threshold, shares] = [said.integer("threshold"), said.integer("shares")];
  const [waiting, inactive] = [said.integer("waiting_days", 7, 366), said.integer("inactive_days")];
  const sealed = said.list("sealed").map((digest) => fromB64u(digest, 32).toString("base64url"));
  const choice = said.word("choice", CHOICES);
  if (threshold < 2 || threshold > shares || shares > 16) refuse("A legacy takes two or more of at most 16 executors.");
  if (inactive && (inactive < 30 || inactive > 3_660)) refuse("A plan begins by itself after 30 to 3,660 days, or never.");
  if (new Set(sealed).size !== sealed.length || sealed.length > 16) refuse("A plan names each consent sealed in advance once, and at most 16.");
  if (sealed.length && choice !== "answer") refuse("Only a plan whose choice is to answer names consents sealed in advance.");
  const terms = { legacyKey: said.publicKey("legacy_key"), waitingS: waiting * DAY_S, inactiveS: inactive * DAY_S, choice, sealed };
  said.end();
  return terms;
}

export interface Statement {
  claim: string;
  act: string;
  issuedAt: number;
}

/** Return a statement that a plan's legacy key signed. */
export function readStatement(envelope: Envelope, legacyKey: Buffer, vault: string, plan: string): Statement {
  const said = new Fields(verifySigned(envelope, "twinvault/legacy/v1", legacyKey), "statement");
  const about = [said.binary("vault", 16), said.binary("plan", 32)].map((name) => name.toString("base64url"));
  const statement = { claim: said.binary("claim", 16).toString("base64url"), act: said.word("act", ACTS), issuedAt: said.integer("issued_at") };
  said.text("reason", REASON);
  said.end();
  if (about[0] !== vault || about[1] !== plan) refuse("The statement is about another vault, or invokes another plan than the one in force.");
  return statement;
}

/** Check an owner's signed answer to a sign-in challenge; return when the challenge expired, in unix seconds. */
export function readSignOfLife(envelope: Envelope, owner: Buffer, vault: string, issuer: string): number {
  const said = new Fields(verifySigned(envelope, "twinvault/sign-in/v1", owner), "sign-in");
  said.exactly("vault", vault);
  said.exactly("role", "owner");
  said.exactly("device", "");
  const nonce = said.binary("nonce", 32);
  said.exactly("origin", issuer.replace(/\/+$/, ""));
  said.end();
  return nonce.readUInt32BE(0);
}
