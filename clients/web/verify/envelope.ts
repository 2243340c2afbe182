// Signed records: DSSE in one binary encoding, and the operator's statements about keys. Frames are a 4-byte length
// and that many bytes.
import { isSigned } from "./ed25519.js";
import { Fields } from "./fields.js";
import { parseJson, type JsonObject } from "./json.js";
import { refuse, sha256 } from "./tree.js";

const TYPES = new Set(
  (
    "genesis succession account ring-page ring-head batch head-list acknowledgement handover reseal row sign-in consent " +
    "subject erasure erased subject-erasure profile key manifest legacy freeze executors audit audit-listing"
  )
    .split(" ")
    .map((name) => `twinvault/${name}/v1`),
);
const MAX_BYTES = 2 ** 20;
const ED25519_KEYS = ["processor-sign", "service", "log"];
const SEALING_KEYS = ["processor", "serving"];
const KEY_NAMES = new Set([...ED25519_KEYS, ...SEALING_KEYS]);
const SUITE = "x-wing+hkdf-sha256+aes-256-gcm";

export interface Envelope {
  type: string;
  payload: Buffer;
  signatures: { id: Buffer; signature: Buffer }[];
  digest: Buffer;
}

export interface ServiceKey {
  name: string;
  epoch: number;
  key: Buffer;
  id: Buffer;
  notBefore: number;
  digest: string;
}

/** Takes an object apart from the front. */
export class Frames {
  private at = 0;

  constructor(
    private readonly data: Buffer,
    limit: number,
  ) {
    if (data.length > limit) refuse("A sealed object is too long.");
  }

  get left(): number {
    return this.data.length - this.at;
  }

  take(size: number): Buffer {
    if (size > this.left) refuse("A sealed object is cut short.");
    this.at += size;
    return this.data.subarray(this.at - size, this.at);
  }

  frame = (): Buffer => this.take(this.take(4).readUInt32BE(0));
}

/** Parse an envelope; its signatures are not checked. */
export function readEnvelope(data: Buffer): Envelope {
  const frames = new Frames(data, MAX_BYTES);
  const type = frames.frame().toString("latin1");
  if (!TYPES.has(type)) refuse("A signed record has a type that is not known.");
  const payload = frames.frame();
  const signatures: Envelope["signatures"] = [];
  while (frames.left) signatures.push({ id: frames.take(16), signature: frames.take(64) });
  const ascending = signatures.every(({ id }, place) => place === 0 || Buffer.compare(signatures[place - 1]?.id ?? id, id) < 0);
  if (!signatures.length || signatures.length > 8 || !ascending) refuse("A signed record has no signature, too many, or not in order.");
  return { type, payload, signatures, digest: sha256(data) };
}

export const keyId = (key: Uint8Array): Buffer => sha256(key).subarray(0, 16);

export const isBy = ({ signatures }: Envelope, key: Buffer): boolean => signatures[0]?.id.equals(keyId(key)) ?? false;

/** Return a record of one type that exactly this key signed. */
export function verifySigned(envelope: Envelope, type: string, key: Buffer): JsonObject {
  const [first, ...more] = envelope.signatures;
  if (envelope.type !== type || more.length || !first || !isBy(envelope, key)) return refuse("A signed record has another type or another signer.");
  const message = Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${envelope.payload.length} `), envelope.payload]);
  if (!isSigned(key, message, first.signature)) refuse("A signature does not verify.");
  return parseJson(envelope.payload);
}

const KEY = "twinvault/key/v1";
const BEGINS = Buffer.concat([Buffer.of(0, 0, 0, KEY.length), Buffer.from(KEY)]);

export const isKeyStatement = (record: Buffer): boolean => record.subarray(0, BEGINS.length).equals(BEGINS);

/** Return what the operator stated about a key. */
export function readKeyStatement(record: Buffer, operator: Buffer): ServiceKey {
  const envelope = readEnvelope(record);
  const said = new Fields(verifySigned(envelope, KEY, operator), "key statement");
  const name = said.word("name", KEY_NAMES);
  const seals = SEALING_KEYS.includes(name);
  said.exactly("algorithm", seals ? SUITE : "ed25519");
  const [epoch, key, notBefore] = [said.integer("epoch", 1), seals ? said.binary("public_key", 1216) : said.publicKey("public_key"), said.integer("not_before")];
  if (Boolean(said.text("log_origin")) !== (name === "log")) refuse("A key statement gives a log's origin, and only a log's.");
  said.end();
  return { name, epoch, key, id: keyId(key), notBefore, digest: envelope.digest.toString("base64url") };
}
