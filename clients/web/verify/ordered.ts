// To whom an event is bound, and who ordered what a tombstone accounts for: the person, by the key of the subject, or
// somebody whose word it is. Only the former can be checked; the latter is counted.
import { keyId, readEnvelope, verifySigned } from "./envelope.js";
import { Fields } from "./fields.js";
import { Malformed, parseJson, spelled, type Json, type JsonObject } from "./json.js";
import { Invalid, fromB64u, refuse, sha256 } from "./tree.js";

export const OWNER = "owner";
const AUTHORS = [OWNER, "executors", "operator", "again"];
const DAY_S = 86_400;
const WITHIN_S = 2 * DAY_S + 600; // an order is carried out within a day of being signed
const LAST_S = 2 ** 32;
const ORDER = "twinvault/subject-erasure/v1";
const BEGINS = Buffer.concat([Buffer.of(0, 0, 0, ORDER.length), Buffer.from(ORDER)]);

/** Say whether an erasure's leaf is by the author that a group of tombstones names. */
export function isBy(author: Json | undefined, erasure: JsonObject): boolean {
  const { again } = erasure;
  const isAgain = Array.isArray(again) || typeof again === "object" ? Object.keys(again).length > 0 : Boolean(again);
  return AUTHORS.includes(spelled(author)) && author === (isAgain ? "again" : spelled(erasure["author"]));
}

/** Check that an event is bound to a subject. */
export function verifyBound(shown: JsonObject, subject: Buffer, salt: Buffer): void {
  const bound = sha256("twinvault/leaf-subject/v1\n", salt, subject).toString("base64url");
  if (salt.length !== 64 || shown["bound"] !== bound) refuse("The event is not bound to the person whom it is about.");
}

/** Check that an event whose personal half is open is bound to the subject that it names. */
export function verifyBoundEvent(shown: JsonObject, personal: JsonObject): void {
  verifyBound(shown, fromB64u(personal["subject"], 16), fromB64u(personal["subject_salt"], 64));
}

export const isSubjectErasure = (record: Buffer): boolean => record.subarray(0, BEGINS.length).equals(BEGINS);

/** The day of each order that a subject's key signed, by the subject; what does not hold orders nothing. */
export function ordersBySubject(records: Iterable<Buffer>, log: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const record of records) {
    if (!isSubjectErasure(record)) continue;
    try {
      const envelope = readEnvelope(record);
      const said = new Fields(parseJson(envelope.payload), "order to erase a subject");
      said.exactly("log", log);
      const [key, day] = [said.binary("principal_key", 32), said.integer("day")];
      said.end();
      verifySigned(envelope, ORDER, key);
      const subject = keyId(key).toString("base64url");
      found.set(subject, Math.max(day, found.get(subject) ?? 0));
    } catch (error) {
      if (!(error instanceof Invalid || error instanceof Malformed)) throw error;
    }
  }
  return found;
}

/** Check that the owner of an event ordered to erase it, unless something later than the order was logged before it. */
export function verifyByOwner(orders: Map<string, number>, subject: Buffer, salt: Buffer, shown: JsonObject, datedBefore: number): void {
  const day = orders.get(subject.toString("base64url"));
  if (day === undefined) return refuse("The tombstone says that its owner ordered it, but no key of the subject did.");
  verifyBound(shown, subject, salt);
  const reaches = Math.min(day * DAY_S + WITHIN_S, LAST_S);
  const period = shown["period"];
  const isMonthUntil = typeof period === "string" && /^[0-9]{4}-[0-9]{2}$/.test(period) && period <= new Date(reaches * 1000).toISOString().slice(0, 7);
  if (datedBefore > reaches || !isMonthUntil) refuse("The owner's order is older than the event that it is said to have erased.");
}
