// The file: what is read here is not believed yet.
import { Malformed, isObject, parseJson, type Json, type JsonObject } from "./json.js";
import { fromB64u, sha256 } from "./tree.js";

export const MAX_BYTES = 512 * 2 ** 20;
const MAX_LINE = 8 * 2 ** 20;
const HEADER = ["format", "checkpoint", "leaves", "records", "complete_from", "complete_to", "withheld"];
const WITHHELD = ["answer", "event", "question"];

export interface Opening {
  salt: Buffer;
  body: Buffer;
}

export interface Leaf {
  index: number;
  entry: Buffer;
  path: Buffer[];
  public: Opening;
  personal: Opening | undefined;
}

export interface Bundle {
  checkpoint: string;
  leaves: Leaf[];
  records: Map<string, Buffer>;
  from: number;
  to: number;
  withheld: Set<string>;
  witnessed: { note: string; proof: Buffer[] } | undefined;
}

export function readBundle(data: Uint8Array): Bundle {
  if (data.length > MAX_BYTES) throw new Malformed("The bundle is too large.");
  const lines = [...split(data)];
  const first = lines[0];
  if (first === undefined) throw new Malformed("The bundle is cut short.");
  const header = fields(parseJson(first), HEADER, ["witnessed"]);
  if (header["format"] !== "twinvault-bundle/v1") throw new Malformed("The bundle has another format.");
  const leafCount = count(header["leaves"]);
  if (lines.length !== 1 + leafCount + count(header["records"])) throw new Malformed("The bundle is not what its header announces.");
  const leaves = lines.slice(1, 1 + leafCount).map((line) => readLeaf(parseJson(line)));
  leaves.forEach((leaf, place) => {
    if (leaf.index <= (leaves[place - 1]?.index ?? -1)) throw new Malformed("Leaves must ascend by index.");
  });
  const records = new Map<string, Buffer>();
  for (const line of lines.slice(1 + leafCount)) {
    const record = fromB64u(fields(parseJson(line), ["record"])["record"]);
    records.set(sha256(record).toString("base64url"), record);
  }
  return {
    checkpoint: text(header["checkpoint"]),
    leaves,
    records,
    from: count(header["complete_from"]),
    to: count(header["complete_to"]),
    withheld: readWithheld(header["withheld"]),
    witnessed: header["witnessed"] === undefined ? undefined : readWitnessed(header["witnessed"]),
  };
}

export function fields(record: JsonObject, names: string[], optional: string[] = []): JsonObject {
  const known = Object.keys(record).every((name) => names.includes(name) || optional.includes(name));
  if (!known || !names.every((name) => name in record)) throw new Malformed(`A record has the fields ${names.join(", ")}.`);
  return record;
}

export function readOpening(value: Json | undefined, saltBytes?: number): Opening {
  if (!isObject(value)) throw new Malformed("An opening has salt and body.");
  const opening = fields(value, ["salt", "body"]);
  return { salt: fromB64u(opening["salt"], saltBytes), body: fromB64u(opening["body"]) };
}

export function count(value: Json | undefined): number {
  if (typeof value !== "number" || value < 0) throw new Malformed("A count must be a whole number.");
  return value;
}

function text(value: Json | undefined): string {
  if (typeof value !== "string") throw new Malformed("A field must be a text.");
  return value;
}

export function hashes(value: Json | undefined, size?: number): Buffer[] {
  if (!Array.isArray(value)) throw new Malformed("A proof is a list of hashes.");
  return value.map((item) => fromB64u(item, size));
}

function readLeaf(record: JsonObject): Leaf {
  fields(record, ["index", "entry", "path", "public"], ["personal"]);
  return {
    index: count(record["index"]),
    entry: fromB64u(record["entry"]),
    path: hashes(record["path"]),
    public: readOpening(record["public"]),
    personal: record["personal"] === undefined ? undefined : readOpening(record["personal"]),
  };
}

function readWithheld(value: Json | undefined): Set<string> {
  const named = WITHHELD.filter((kind) => Array.isArray(value) && value.includes(kind));
  if (JSON.stringify(named) !== JSON.stringify(value)) throw new Malformed("What is withheld is listed once, by name.");
  return new Set(named);
}

function readWitnessed(value: Json): { note: string; proof: Buffer[] } {
  if (!isObject(value)) throw new Malformed("What is witnessed is a checkpoint and a proof.");
  fields(value, ["checkpoint", "proof"]);
  return { note: text(value["checkpoint"]), proof: hashes(value["proof"]) };
}

function* split(data: Uint8Array): Generator<Uint8Array> {
  let start = 0;
  for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10, start)) {
    if (end - start > MAX_LINE) throw new Malformed("A line of the bundle is too long.");
    yield data.subarray(start, end);
    start = end + 1;
  }
  if (start !== data.length) throw new Malformed("The bundle is cut short.");
}
