// What others signed: the operator's statements about keys, and the versions of consents.
import { Malformed, isObject, parseJson, spelled, type Json, type JsonObject } from "./json.js";
import { fields } from "./bundle.js";
import { fromB64u, isSigned, refuse, sha256 } from "./tree.js";

const KEY = "twinvault/key/v1";
const CONSENT = "twinvault/consent/v1";
const ED25519_KEYS = ["processor-sign", "service", "log"];
const SEALING_KEYS = ["processor", "serving"];
const SUITE = "x-wing+hkdf-sha256+aes-256-gcm";
const LIVE = ["given", "narrowed", "renewed"];
const LAST_S = 2 ** 32;

export interface ServiceKey {
  name: string;
  key: Buffer;
  notBefore: number;
}

export interface ConsentVersion {
  personal: JsonObject;
  public: JsonObject;
  live: boolean;
  number: number;
  quota: number;
}

interface Envelope {
  type: string;
  payload: Buffer;
  signatures: { id: Buffer; signature: Buffer }[];
}

/** Return what reads a record as a key statement under the operator's key, if it begins like one. */
export function keyStatement(record: Buffer): ((operator: Buffer) => ServiceKey) | undefined {
  const begins = Buffer.concat([Buffer.of(0, 0, 0, KEY.length), Buffer.from(KEY)]);
  if (!record.subarray(0, begins.length).equals(begins)) return undefined;
  return (operator) => {
    const envelope = readEnvelope(record);
    verifySigned(envelope, KEY, operator);
    const said = fields(parseJson(envelope.payload), ["name", "epoch", "algorithm", "public_key", "not_before", "log_origin"]);
    const [name, seals] = [spelled(said["name"]), SEALING_KEYS.includes(spelled(said["name"]))];
    if (!seals && !ED25519_KEYS.includes(name)) refuse("A key statement names a use that is not known.");
    if (said["algorithm"] !== (seals ? SUITE : "ed25519")) refuse("A key statement names an algorithm that its use does not have.");
    if (!(whole(said["epoch"]) >= 1) || Boolean(text(said["log_origin"])) !== (name === "log")) refuse("A key statement contradicts itself.");
    return { name, key: fromB64u(said["public_key"], seals ? 1216 : 32), notBefore: whole(said["not_before"]) };
  };
}

/** Return a version of a consent that the person signed, or the service where only it can cause the event. */
export function readVersion(record: Buffer, keys: ServiceKey[]): ConsentVersion {
  const envelope = readEnvelope(record);
  const said = parseJson(envelope.payload);
  const [event, at] = [text(said["event_type"]), whole(said["event_time"])];
  const [principal, terms] = [fromB64u(said["principal_key"], 32), said["terms"]];
  if (LIVE.includes(event) || event === "withdrawn") verifySigned(envelope, CONSENT, principal);
  else {
    const known = keys.find(({ name, key, notBefore }) => name === "service" && notBefore <= at && at < LAST_S && isBy(envelope, key));
    if (!known) return refuse("No service key that the operator vouched for signed the version.");
    verifySigned(envelope, CONSENT, known.key);
  }
  const subject = sha256(principal).subarray(0, 16).toString("base64url");
  if (said["pii_principal_id"] !== subject || !isObject(terms)) refuse("A version of a consent contradicts itself.");
  const { grantee, kind, quota } = terms as JsonObject;
  return {
    personal: { consent: text(said["record_id"]), version: whole(said["version"]), subject, grantee: text(grantee), event, at },
    public: { consent_kind: text(kind), event_state: text(said["event_state"]) },
    live: LIVE.includes(event),
    number: whole(said["version"]),
    quota: isObject(quota) ? whole(quota["n"]) : refuse("A version of a consent has no quota."),
  };
}

const isBy = (envelope: Envelope, key: Buffer): boolean =>
  envelope.signatures[0]?.id.equals(sha256(key).subarray(0, 16)) ?? false;

function readEnvelope(data: Buffer): Envelope {
  let at = 0;
  const take = (size: number): Buffer => {
    if (size > data.length - at) refuse("A sealed object is cut short.");
    at += size;
    return data.subarray(at - size, at);
  };
  if (data.length > 2 ** 20) refuse("A signed record is too long.");
  const type = take(take(4).readUInt32BE(0)).toString("latin1");
  const payload = take(take(4).readUInt32BE(0));
  const signatures: Envelope["signatures"] = [];
  while (at < data.length) signatures.push({ id: take(16), signature: take(64) });
  const ascending = signatures.every(({ id }, place) => place === 0 || Buffer.compare(signatures[place - 1]?.id ?? id, id) < 0);
  if (!signatures.length || signatures.length > 8 || !ascending) refuse("A signed record has no signature, too many, or not in order.");
  return { type, payload, signatures };
}

function verifySigned(envelope: Envelope, type: string, key: Buffer): void {
  const [first, ...more] = envelope.signatures;
  if (envelope.type !== type || more.length || !first || !isBy(envelope, key)) refuse("A signed record has another type or another signer.");
  const message = Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${envelope.payload.length} `), envelope.payload]);
  if (!first || !isSigned(key, message, first.signature)) refuse("A signature does not verify.");
}

function text(value: Json | undefined): string {
  if (typeof value !== "string") throw new Malformed("A field must be a text.");
  return value;
}

function whole(value: Json | undefined): number {
  if (typeof value !== "number" || value < 0) throw new Malformed("A field must be a whole number.");
  return value;
}
