// Step 19: an auditor opens some consents of a listing, and the others stay under pseudonyms. The rows together must
// count every event that the log has, and each opened row exactly the events that are opened.
import { count, fields } from "./bundle.js";
import { CHAINED, attempt, consentOf, type Carried, type Evidence, type Report } from "./evidence.js";
import { Malformed, isObject, ordered, parseJson, spell, spelled, type Json, type JsonObject } from "./json.js";
import { fromB64u, refuse, sha256 } from "./tree.js";

export const MAX_LISTING_BYTES = 256 * 2 ** 20;
const FORMAT = "twinvault-listing/v1";

interface Opened {
  consent: Buffer;
  consentSalt: Buffer;
  subject: Buffer;
  subjectSalt: Buffer;
}

interface Row {
  consent: Buffer;
  person: Buffer;
  grantee: string;
  counts: Map<string, number>;
  opened: Opened | undefined;
}

export interface Listing {
  first: number;
  end: number;
  rows: Row[];
  alone: number;
  erased: Map<string, number>;
  /** Digest of the listing with nothing opened. */
  digest: string;
}

/** Read a listing. */
export function readListing(data: Buffer): Listing {
  if (data.length > MAX_LISTING_BYTES) throw new Malformed("A listing is too large.");
  const lines = data.toString("latin1").split("\n");
  if (lines.pop() !== "" || lines[0] === undefined) throw new Malformed("The listing is cut short.");
  const [header, ...records] = lines.map((line) => parseJson(Buffer.from(line, "latin1"))) as [JsonObject, ...JsonObject[]];
  fields(header, ["format", "first", "end", "rows", "alone", "erased"]);
  if (header["format"] !== FORMAT) throw new Malformed(`The listing is not of the format ${FORMAT}.`);
  const [first, end, alone] = [count(header["first"]), count(header["end"]), count(header["alone"])];
  if (records.length !== count(header["rows"])) throw new Malformed("The listing is not what its header announces.");
  const [rows, erased] = [records.map(readRow), readCounts(header["erased"])];
  const ascending = rows.every(({ consent }, place) => place === 0 || Buffer.compare(rows[place - 1]?.consent ?? consent, consent) < 0);
  if (!ascending) throw new Malformed("Rows must ascend by their consents' pseudonyms.");
  const shut = rows.map(({ consent, person, grantee, counts }) => {
    return { consent: b64u(consent), person: b64u(person), grantee, events: spellCounts(counts) };
  });
  const head = { format: FORMAT, first, end, rows: rows.length, alone, erased: spellCounts(erased) };
  const digest = b64u(sha256([head, ...shut].map((record) => `${spell(record)}\n`).join("")));
  return { first, end, rows, alone, erased, digest };
}

const b64u = (data: Buffer): string => data.toString("base64url");
const spellCounts = (counts: Map<string, number>): JsonObject => Object.fromEntries([...counts].filter(([, number]) => number));

function readRow(record: JsonObject): Row {
  fields(record, ["consent", "person", "grantee", "events"], ["opened"]);
  const { grantee, opened } = record;
  if (typeof grantee !== "string") throw new Malformed("A grantee is a text.");
  const [consent, person] = [fromB64u(record["consent"], 32), fromB64u(record["person"], 32)];
  return { consent, person, grantee, counts: readCounts(record["events"]), opened: opened === undefined ? undefined : readOpened(opened) };
}

function readOpened(value: Json): Opened {
  if (!isObject(value)) throw new Malformed("What is opened is an object.");
  fields(value, ["consent", "consent_salt", "subject", "subject_salt"]);
  const [consent, subject] = [fromB64u(value["consent"], 16), fromB64u(value["subject"], 16)];
  return { consent, subject, consentSalt: fromB64u(value["consent_salt"], 32), subjectSalt: fromB64u(value["subject_salt"], 32) };
}

function readCounts(value: Json | undefined): Map<string, number> {
  if (!isObject(value) || !Object.keys(value).every((kind) => CHAINED.includes(kind))) throw new Malformed("Events are counted by their kind.");
  return new Map(Object.entries(value).map(([kind, number]) => [kind, count(number)]));
}

/** What the parts of an audit show of the events that a listing counts. */
export class Tally {
  private readonly opened = new Map<string, Map<string, number>>();
  private readonly closed = new Map<string, number>();
  private readonly erased = new Map<string, number>();
  private readonly logged = new Set<string>();
  private readonly given = new Map<string, string>();
  private alone = 0;

  constructor(private readonly listing: Listing) {}

  /** Add what one part shows. */
  add(evidence: Evidence): void {
    for (const { public: said } of evidence.of("auditor-access")) this.logged.add([said["listing"], said["first"], said["last"]].map(spelled).join(" "));
    for (const event of evidence.chained("consent")) {
      this.given.set(consentOf(event), `${spelled(event.personal["grantee"])} ${spelled(event.personal["subject"])}`);
    }
    const own = CHAINED.flatMap((kind) => evidence.of(kind)).filter(({ index }) => evidence.isWhole(index));
    for (const event of [...own, ...evidence.grouped]) {
      if (event.personal["consent"] !== undefined) this.open(consentOf(event), event.kind);
      else this.alone += Number(event.body !== undefined);
    }
    for (const event of own) if (!event.body) raise(evidence.stones.has(event.index, 0) ? this.erased : this.closed, event.kind);
    for (const group of evidence.members.groups()) {
      for (const { personal, place } of evidence.isWhole(group) ? evidence.members.of(group) : []) {
        if (!personal) raise(evidence.stones.has(group, place + 1) ? this.erased : this.closed, "denial");
      }
    }
  }

  private open(consent: string, kind: string): void {
    const counts = this.opened.get(consent) ?? new Map<string, number>();
    this.opened.set(consent, counts);
    raise(counts, kind);
  }

  /** Compare the listing with the log that it is about. */
  verify(report: Report, { from, to }: Carried): void {
    const { listing } = this;
    const check = (compare: () => void): void => attempt(report, "listing", null, compare);
    check(() => {
      if (from !== listing.first || to !== listing.end) refuse("The listing is about other leaves than are shown: fetch the whole time of the engagement.");
    });
    check(() => {
      if (!this.logged.has([listing.digest, listing.first, listing.end - 1].join(" "))) refuse("No leaf commits to this listing.");
    });
    for (const kind of CHAINED) check(() => this.verifyTotal(kind));
    const rows = new Map(listing.rows.flatMap((row) => (row.opened ? [[b64u(row.opened.consent), { row, opened: row.opened }] as const] : [])));
    for (const { row, opened } of rows.values()) check(() => this.verifyRow(row, opened));
    for (const consent of [...this.opened.keys()].sort(ordered)) {
      if (!rows.has(consent)) check(() => refuse(`Events of the consent ${consent} are opened, but no row of the listing is opened as it.`));
    }
  }

  private verifyTotal(kind: string): void {
    const { rows, alone, erased } = this.listing;
    const isDenial = Number(kind === "denial");
    const listed = total(rows.map(({ counts }) => counts), kind) + isDenial * alone;
    const logged = total([...this.opened.values(), this.closed], kind) + isDenial * this.alone;
    if (listed !== logged || total([erased], kind) !== total([this.erased], kind)) {
      refuse(`The listing counts ${listed} events of the kind ${kind}, the log has ${logged}, or others were erased.`);
    }
  }

  private verifyRow(row: Row, opened: Opened): void {
    const consent = b64u(opened.consent);
    const isListed = pseudonym("consent", opened.consentSalt, opened.consent).equals(row.consent);
    if (!isListed || !pseudonym("person", opened.subjectSalt, opened.subject).equals(row.person)) {
      refuse(`The row ${b64u(row.consent)} was listed for another consent or person than it is opened as.`);
    }
    const shown = this.opened.get(consent) ?? new Map<string, number>();
    if (CHAINED.some((kind) => total([shown], kind) !== total([row.counts], kind))) refuse(`The row ${b64u(row.consent)} counts other events than the log opens.`);
    if (this.given.get(consent) !== `${row.grantee} ${b64u(opened.subject)}`) refuse(`The row ${b64u(row.consent)} names another grantee or person than its consent.`);
  }
}

const pseudonym = (kind: string, salt: Buffer, name: Buffer): Buffer => sha256(`twinvault/pseudonym-${kind}/v1\n`, salt, name);

const raise = (counts: Map<string, number>, kind: string): unknown => counts.set(kind, (counts.get(kind) ?? 0) + 1);

const total = (all: Map<string, number>[], kind: string): number => all.reduce((sum, counts) => sum + (counts.get(kind) ?? 0), 0);
