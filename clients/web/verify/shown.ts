// Openings, and the records that account for what is not opened or shares a leaf.
import { count, fields, hashes, readOpening, type Opening } from "./bundle.js";
import { isBy } from "./ordered.js";
import { Malformed, parseJson, spelled, type JsonObject } from "./json.js";
import { fromB64u, leafHash, refuse, sha256, verifyInclusion } from "./tree.js";

const TOMBSTONE = "twinvault-tombstone/1";
const MEMBER = "twinvault-member/1";
const KINDS = new Set(
  (
    "vault-genesis succession profile account ring-head upload consent-request consent handover reseal release manifest " +
    "model-withdrawn policy-set company company-status key answer denial denials freeze erasure retention auditor-access " +
    "training tombstones legacy-plan legacy-claim legacy-force legacy-open legacy-veto"
  ).split(" "),
);

/** Return the content that one half of an entry, shown to be in the log, committed to. */
export function open(entry: Buffer, part: "public" | "personal", { salt, body }: Opening): JsonObject {
  if (entry.length !== 65 || entry[0] !== 1 || salt.length !== 64) refuse("An entry has 65 bytes of version 1, and a salt 64.");
  const committed = part === "public" ? entry.subarray(1, 33) : entry.subarray(33);
  if (!sha256(`twinvault/leaf-${part}/v1\n`, salt, body).equals(committed)) refuse("An opening is not what the entry committed to.");
  const record = parseJson(body);
  const { kind } = record;
  if (part === "public" && !(typeof kind === "string" && KINDS.has(kind))) refuse("The public half names no known kind of event.");
  return record;
}

interface Tombstone {
  group: number;
  salt: Buffer;
  position: number;
  size: number;
  path: Buffer[];
  /** To whom the event is bound, where the owner ordered it and the holder may know; else empty. */
  subject: Buffer;
  subjectSalt: Buffer;
}

/** The tombstones of a bundle, by the leaf and the event of it that they are about; what cannot be read accounts for nothing. */
export class Tombstones {
  private readonly found = new Map<string, Tombstone[]>();

  constructor(records: Iterable<Buffer>) {
    for (const said of beginning(records, TOMBSTONE, (record) => {
      fields(record, ["format", "leaf", "member", "group", "salt", "position", "size", "path", "subject", "subject_salt"]);
      const [leaf, member] = [count(record["leaf"]), count(record["member"])];
      const [group, position, size] = [count(record["group"]), count(record["position"]), count(record["size"])];
      const [subject, subjectSalt] = [fromB64u(record["subject"]), fromB64u(record["subject_salt"])];
      if (![0, 16].includes(subject.length)) throw new Malformed("A tombstone's subject has 16 bytes, or is left out.");
      const stone = { group, salt: fromB64u(record["salt"], 32), position, size, path: hashes(record["path"], 32), subject, subjectSalt };
      return { place: `${leaf} ${member}`, stone };
    })) {
      append(this.found, said.place, said.stone);
    }
  }

  has(leaf: number, member: number): boolean {
    return this.found.has(`${leaf} ${member}`);
  }

  /** Return the tombstone that accounts for a missing opening, in one of the logged groups, and its group's author. */
  verify(leaf: number, member: number, entry: Buffer, groups: Map<number, JsonObject>, unordered: Map<number, string>): Tombstone & { author: string } {
    const stone = this.found.get(`${leaf} ${member}`)?.find(({ group }) => groups.has(group));
    const group = stone && groups.get(stone.group);
    if (!stone || !group) return refuse("The personal half is not opened, and no tombstone in a logged group accounts for it.");
    refuseIf(unordered.get(stone.group));
    if (group["count"] !== stone.size || entry.length !== 65) refuse("A tombstone names another size than its group has.");
    const hash = leafHash(Buffer.concat([stone.salt, entry.subarray(33)]));
    verifyInclusion(hash, stone.position, stone.size, stone.path, fromB64u(group["root"], 32));
    return { ...stone, author: spelled(group["author"]) };
  }
}

interface Logged {
  index: number;
  public: JsonObject;
}

/** Why groups of tombstones account for nothing: each follows from erasures of people before it, that no other names. */
export function whyUnordered(groups: Logged[], erasures: (Logged & { entry: Buffer })[]): Map<number, string> {
  const logged = new Map(erasures.map((one) => [leafHash(one.entry).toString("base64url"), one]));
  const named = groups.map((group) => {
    const orders = group.public["orders"];
    return { group, names: Array.isArray(orders) ? orders.map(spelled) : [] };
  });
  const every = named.flatMap(({ names }) => names);
  const why = new Map<number, string>();
  for (const { group, names } of named) {
    const orders = names.map((name) => logged.get(name));
    if (!names.length) why.set(group.index, "The tombstone's group follows from no erasure: nobody ordered it.");
    else if (orders.some((one) => !one || one.index > group.index || one.public["scope"] !== "person")) {
      why.set(group.index, "The tombstone's group follows from something that erased no person before it.");
    } else if (orders.some((one) => one && !isBy(group.public["author"], one.public))) {
      why.set(group.index, "The tombstone's group follows from an erasure by somebody else than it says.");
    } else if (names.some((name) => every.indexOf(name) !== every.lastIndexOf(name))) {
      why.set(group.index, "Two groups of tombstones follow from one erasure.");
    }
  }
  return why;
}

export interface Member {
  group: number;
  place: number;
  entry: Buffer;
  public: Opening;
  personal: Opening | undefined;
}

/** The events of a bundle that share leaves; what cannot be read is missing from its group. */
export class Members {
  private readonly found = new Map<number, Member[]>();

  constructor(records: Iterable<Buffer>) {
    const all = beginning(records, MEMBER, (record): Member => {
      fields(record, ["format", "group", "leaf", "place", "public"], ["personal"]);
      const [group, place] = [record["group"], record["place"]];
      if (typeof group !== "number" || typeof place !== "number") throw new Malformed("An event names no group or no place.");
      const personal = record["personal"] === undefined ? undefined : readOpening(record["personal"], 64);
      return { group, place, entry: fromB64u(record["leaf"], 65), public: readOpening(record["public"], 64), personal };
    });
    for (const member of all) append(this.found, member.group, member);
    for (const members of this.found.values()) members.sort((one, other) => one.place - other.place);
  }

  groups(): Iterable<number> {
    return this.found.keys();
  }

  of(group: number): Member[] {
    return this.found.get(group) ?? [];
  }
}

function append<Place, T>(found: Map<Place, T[]>, place: Place, item: T): void {
  const some = found.get(place);
  if (some) some.push(item);
  else found.set(place, [item]);
}

function refuseIf(why: string | undefined): void {
  if (why !== undefined) refuse(why);
}

const begins = (record: Buffer, format: string): boolean => {
  const beginning = Buffer.from(`{"format":"${format.slice(0, format.indexOf("/") + 1)}`);
  return record.subarray(0, beginning.length).equals(beginning);
};

/** Say whether a record claims to be a tombstone, or an event of a group. */
export const isTombstone = (record: Buffer): boolean => begins(record, TOMBSTONE);
export const isMember = (record: Buffer): boolean => begins(record, MEMBER);

function* beginning<T>(records: Iterable<Buffer>, format: string, read: (record: JsonObject) => T): Generator<T> {
  for (const record of records) {
    if (!begins(record, format)) continue;
    try {
      const said = parseJson(record);
      if (said["format"] === format) yield read(said);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
    }
  }
}
