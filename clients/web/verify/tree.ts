// Hashes, trees, notes and checkpoints: RFC 6962, RFC 9162, C2SP signed-note, tlog-checkpoint, tlog-cosignature.
import { createHash } from "node:crypto";

import { isPublicKey, isSigned } from "./ed25519.js";
import { Malformed } from "./json.js";

export class Invalid extends Error {}

export function refuse(sentence: string): never {
  throw new Invalid(sentence);
}

export const equal = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

export function sha256(...parts: (string | Uint8Array)[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export const leafHash = (entry: Uint8Array): Buffer => sha256(Buffer.of(0), entry);
const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Buffer.of(1), left, right);

export function fromB64u(text: unknown, size?: number): Buffer {
  const data = typeof text === "string" ? Buffer.from(text, "base64url") : undefined;
  if (data?.toString("base64url") !== text || data === undefined) throw new Malformed("A binary field is not base64url.");
  if (size !== undefined && data.length !== size) throw new Malformed(`A binary field has other than ${size} bytes.`);
  return data;
}

function fromB64(text: string, size?: number): Buffer {
  const data = Buffer.from(text, "base64");
  if (data.toString("base64") !== text || (size !== undefined && data.length !== size)) refuse("A field is not base64.");
  return data;
}

/** Read an Ed25519 public key that a signature can bind somebody by. */
export function readPublicKey(text: unknown): Buffer {
  const key = fromB64u(text, 32);
  return isPublicKey(key) ? key : refuse("A public key is not in its one spelling, or of small order.");
}

export interface Key {
  name: string;
  id: Buffer;
  key: Buffer;
}

/** Read `name+id+base64(type || key)` of one type. */
export function readKey(text: string, type: number): Key {
  const [name = "", id, ...rest] = text.split("+");
  const data = fromB64(rest.join("+"), 33);
  const expected = sha256(`${name}\n`, data).subarray(0, 4);
  if (!isKeyName(name) || data[0] !== type || id !== expected.toString("hex")) refuse("A trusted key does not fit its name and id.");
  if (!isPublicKey(data.subarray(1))) refuse("A trusted key is not in its one spelling, or of small order.");
  return { name, id: expected, key: data.subarray(1) };
}

interface Line {
  name: string;
  id: Buffer;
  signature: Buffer;
}

export interface Checkpoint {
  text: string;
  lines: Line[];
  size: number;
  root: Buffer;
}

const CONTROL = /[\u0000-\u0009\u000b-\u001f]/;
const MAX_NOTE = 65_536;
const MAX_SIGNATURES = 32;

const isKeyName = (name: string): boolean => name !== "" && !/[+\s\u001c-\u001f\u0085]/u.test(name) && !CONTROL.test(name);

function readNote(note: string): { text: string; lines: Line[] } {
  const cut = note.lastIndexOf("\n\n");
  if ([...note].length > MAX_NOTE || CONTROL.test(note) || cut < 0 || !note.endsWith("\n") || cut + 2 === note.length) {
    refuse("A note is text, an empty line and signature lines, each ended by a newline.");
  }
  const lines = note.slice(cut + 2, -1).split("\n").map((line): Line => {
    const [, name = "", signature = ""] = /^— ([^ ]+) ([A-Za-z0-9+/=]+)$/u.exec(line) ?? [];
    const data = fromB64(signature);
    if (!isKeyName(name) || data.length <= 4) refuse("A signature line is not a dash, a key name and base64.");
    return { name, id: data.subarray(0, 4), signature: data.subarray(4) };
  });
  const signers = new Set(lines.map((line) => `${line.name} ${line.id.toString("hex")}`));
  if (lines.length > MAX_SIGNATURES || signers.size !== lines.length) refuse("A note has too many signatures, or two by one key.");
  return { text: note.slice(0, cut + 1), lines };
}

/** Return the checkpoint that the pinned log signed. */
export function readCheckpoint(note: string, log: Key, origin: string): Checkpoint {
  const { text, lines } = readNote(note);
  const line = lines.find((item) => item.name === log.name && item.id.equals(log.id));
  if (!line || !isSigned(log.key, text, line.signature)) return refuse("The pinned log did not sign the checkpoint.");
  const [named, size = "", root = "", ...rest] = text.split("\n");
  if (named !== origin || !/^(0|[1-9][0-9]{0,15})$/.test(size) || rest.length !== 1 || rest[0] !== "") {
    refuse("The checkpoint is not origin, size and root of the pinned log.");
  }
  const found = { text, lines, size: Number(size), root: fromB64(root, 32) };
  if (!Number.isSafeInteger(found.size)) refuse("The log is larger than this verifier counts.");
  if (found.size === 0 && !found.root.equals(sha256())) refuse("An empty log has a root that is not the empty root.");
  return found;
}

// Sizes above 2^31 do not fit bit operators: halve and compare as numbers.
const odd = (n: number): boolean => n % 2 === 1;
const half = (n: number): number => Math.floor(n / 2);

function skipBorder(low: number, last: number): [number, number] {
  while (low && !odd(low)) [low, last] = [half(low), half(last)];
  return [low, last];
}

const isHash = (item: Uint8Array): boolean => item.length === 32;

/** RFC 9162, 2.1.3.2. */
export function verifyInclusion(hash: Buffer, index: number, size: number, path: Buffer[], root: Buffer): void {
  if (!(index >= 0 && index < size) || !path.every(isHash)) refuse("The tree has no such leaf, or a hash has another size.");
  let [node, low, last] = [hash, index, size - 1];
  for (const sibling of path) {
    if (last === 0) refuse("The inclusion proof holds too many hashes.");
    if (odd(low) || low === last) {
      node = nodeHash(sibling, node);
      [low, last] = skipBorder(low, last);
    } else node = nodeHash(node, sibling);
    [low, last] = [half(low), half(last)];
  }
  if (last !== 0 || !node.equals(root)) refuse("The inclusion proof does not lead to the root.");
}

/** RFC 9162, 2.1.4.2. */
export function verifyConsistency(older: Checkpoint, newer: Checkpoint, proof: Buffer[]): void {
  const sentence = "The log does not continue the tree that was seen before.";
  if (!(older.size > 0 && older.size <= newer.size) || !proof.every(isHash)) refuse(sentence);
  if (older.size === newer.size) {
    if (proof.length || !older.root.equals(newer.root)) refuse(sentence);
    return;
  }
  if (!proof.length) refuse(sentence);
  let [low, last] = [older.size - 1, newer.size - 1];
  const [first, ...path] = Number.isInteger(Math.log2(older.size)) ? [older.root, ...proof] : proof;
  while (odd(low)) [low, last] = [half(low), half(last)];
  let [before, after] = [first ?? refuse(sentence), first ?? refuse(sentence)];
  for (const sibling of path) {
    if (last === 0) refuse(sentence);
    if (odd(low) || low === last) {
      [before, after] = [nodeHash(sibling, before), nodeHash(sibling, after)];
      [low, last] = skipBorder(low, last);
    } else after = nodeHash(after, sibling);
    [low, last] = [half(low), half(last)];
  }
  if (last !== 0 || !before.equals(older.root) || !after.equals(newer.root)) refuse(sentence);
}

/** RFC 6962, 2.1, over leaf hashes. */
export function treeRoot(hashes: Buffer[]): Buffer {
  if (hashes.length === 1 && hashes[0]) return hashes[0];
  if (!hashes.length) return sha256();
  let split = 1;
  while (split * 2 < hashes.length) split *= 2;
  return nodeHash(treeRoot(hashes.slice(0, split)), treeRoot(hashes.slice(split)));
}

export interface WitnessPolicy {
  keys: string[];
  quorum: number;
  max_age_s: number;
}

/** When each trusted witness cosigned a checkpoint, by the witness's name, in unix seconds. */
export function cosignedAt({ text, lines }: Checkpoint, policy: WitnessPolicy): Map<string, bigint> {
  const found = new Map<string, bigint>();
  const trusted = policy.keys.map((key) => readKey(key, 4));
  for (const { name, id, signature } of lines) {
    const witness = trusted.find((key) => key.name === name && key.id.equals(id));
    if (!witness) continue;
    if (signature.length !== 72) refuse("A trusted witness's line is not time and signature.");
    const at = signature.readBigUInt64BE(0);
    if (!isSigned(witness.key, `cosignature/v1\ntime ${at}\n${text}`, signature.subarray(8))) refuse("A trusted witness's cosignature is wrong.");
    if (at >= (found.get(name) ?? 0n)) found.set(name, at); // a witness that changes its key counts once
  }
  if (found.size < policy.quorum) refuse(`${found.size} trusted witnesses cosigned where ${policy.quorum} must.`);
  return found;
}

/** Check that enough trusted witnesses saw, late enough, a tree that this one continues. */
export function verifyWitnessed(seen: Checkpoint, proof: Buffer[], newer: Checkpoint, policy: WitnessPolicy, latest: number): void {
  const fresh = [...cosignedAt(seen, policy).values()].filter((at) => at >= BigInt(latest - policy.max_age_s));
  if (fresh.length < policy.quorum) refuse("The witnesses' view is much older than the newest event.");
  verifyConsistency(seen, newer, proof);
}
