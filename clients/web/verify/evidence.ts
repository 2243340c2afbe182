// What the steps have established so far about a bundle, and what one part of an audit hands on to the next.
import type { Answer } from "./answers.js";
import type { Bundle, Leaf } from "./bundle.js";
import type { Version } from "./consent.js";
import { verifySigned, type Envelope, type ServiceKey } from "./envelope.js";
import { Malformed, isObject, parseJson, spelled, type Json, type JsonObject } from "./json.js";
import type { Tally } from "./listing.js";
import { COMPANY, readJws } from "./jws.js";
import { readCompany, type Company, type Question } from "./question.js";
import type { PolicySet } from "./rules.js";
import { OWNER, ordersBySubject, verifyByOwner } from "./ordered.js";
import { Members, Tombstones, whyUnordered } from "./shown.js";
import { Invalid, fromB64u, readKey, readPublicKey, refuse, type Checkpoint, type Key, type WitnessPolicy } from "./tree.js";

export const STEPS = {
  bundle: 0, checkpoint: 1, inclusion: 2, openings: 3, keys: 4, consent: 5, order: 6, answer: 7, question: 8, decision: 9, certificate: 10,
  quota: 11, erasure: 12, witnesses: 13, time: 14, records: 15, ledger: 16, legacy: 17, groups: 18, listing: 19,
} as const;
export type Step = keyof typeof STEPS;

export interface Failure {
  step: number;
  name: Step;
  leaf: number | null;
  detail: string;
}

export interface Report {
  leaves: number;
  checked: Partial<Record<Step, number>>;
  withheld: Partial<Record<Step, number>>;
  failures: Failure[];
  /** How many events were erased, by who ordered it: only an owner's order was checked. */
  erased: Record<string, number>;
}

export const emptyReport = (): Report => ({ leaves: 0, checked: {}, withheld: {}, failures: [], erased: {} });

/** Run one check and keep its refusal as a failure of the step. */
export function attempt(report: Report, step: Step, leaf: number | null, check: () => void): void {
  report.checked[step] = (report.checked[step] ?? 0) + 1;
  try {
    check();
  } catch (error) {
    if (!(error instanceof Invalid || error instanceof Malformed)) throw error;
    report.failures.push({ step: STEPS[step], name: step, leaf, detail: error.message });
  }
}

export interface Trust {
  issuer: string;
  origin: string;
  log: Key;
  operator: Buffer;
  witnesses: WitnessPolicy | undefined;
}

export interface Event {
  index: number;
  kind: string;
  entry: Buffer;
  public: JsonObject;
  personal: JsonObject;
  body: Buffer | undefined;
}

/** An answer as its consent's quota counted it: which of its month it was. */
export interface Counted {
  index: number;
  at: number;
  month: string;
  number: number;
}

/** What the parts of one audit, verified in the order of the log, hand on. */
export class Carried {
  from: number | undefined;
  to = 0;
  checkpoint: Checkpoint | undefined;
  latest = 0;
  readonly last = new Map<string, Event>();
  readonly counted = new Map<string, Counted>();
  readonly companies = new Map<string, number>();
  readonly trainings = new Set<string>();
  readonly years = new Map<string, number[]>();

  /** Where an audit opens some consents only, `tally` counts what its listing must. */
  constructor(readonly tally?: Tally) {}
}

export const CHAINED = ["consent-request", "consent", "answer", "denial"];
export const SKEW_S = 300;
const LAST_S = 2 ** 32;

export const consentOf = (event: Event): string => spelled(event.personal["consent"]);
export const requesterOf = (event: Event): string => spelled(event.personal["requester"]);

/** When an event happened, if it says so. */
export function saidAt(event: Event): number | undefined {
  const at = event.personal["at"] ?? event.public["at"];
  return typeof at === "number" && at >= 0 && at < LAST_S ? at : undefined;
}

export const timeOf = (event: Event): number => saidAt(event) ?? refuse("The leaf does not say when its event happened.");

export class Evidence {
  readonly report: Report;
  readonly events: Event[] = [];
  readonly grouped: Event[] = [];
  readonly unopened: { leaf: Leaf; shown: JsonObject }[] = [];
  readonly keys = new Map<string, ServiceKey>();
  readonly versions = new Map<string, { index: number; version: Version }[]>();
  readonly answers = new Map<number, Answer>();
  readonly questions = new Map<number, Question>();
  readonly byAgents = new Set<number>();
  readonly counted = new Map<string, Counted[]>();
  readonly policySets = new Map<string, PolicySet>();
  readonly stones: Tombstones;
  readonly members: Members;
  checkpoint: Checkpoint | undefined;
  private readonly byKind = new Map<string, Event[]>();
  private readonly saying = new Map<string, Map<string, Event[]>>();
  private unordered: Map<number, string> | undefined;
  private orders: Map<string, number> | undefined;

  constructor(
    readonly bundle: Bundle,
    readonly trust: Trust,
    readonly carried: Carried,
  ) {
    this.report = { ...emptyReport(), leaves: bundle.leaves.length };
    this.stones = new Tombstones(bundle.records.values());
    this.members = new Members(bundle.records.values());
  }

  attempt(step: Step, leaf: number | null, check: () => void): void {
    attempt(this.report, step, leaf, check);
  }

  add(event: Event): void {
    this.events.push(event);
    const known = this.byKind.get(event.kind);
    if (known) known.push(event);
    else this.byKind.set(event.kind, [event]);
  }

  of(kind: string): Event[] {
    return this.byKind.get(kind) ?? [];
  }

  /** Events of these kinds in a consent's chain, which the holder may open, in the order of the log. */
  chained(...kinds: string[]): Event[] {
    return this.events.filter((event) => kinds.includes(event.kind) && event.personal["consent"] !== undefined);
  }

  get claimsWhole(): boolean {
    return this.bundle.from < this.bundle.to;
  }

  isWhole(index: number): boolean {
    return index >= this.bundle.from && index < this.bundle.to;
  }

  /** Where the range begins that is looked at: this part's, and those before it that it continues. */
  get begin(): number {
    return this.carried.from ?? this.bundle.from;
  }

  isLookedAt(index: number): boolean {
    return index >= this.begin && index < this.bundle.to;
  }

  withhold(step: Step, isSo: boolean): boolean {
    if (isSo) this.report.withheld[step] = (this.report.withheld[step] ?? 0) + 1;
    return isSo;
  }

  /** Say whether an event may stand unopened because an auditor did not choose its consent. */
  mayBeClosed(leaf: number, member = 0): boolean {
    return this.withhold("openings", this.bundle.withheld.has("event") && !this.stones.has(leaf, member));
  }

  /** Check that a tombstone accounts for a missing opening, by whoever may order it; count it by author. */
  verifyErased(leaf: number, member: number, entry: Buffer, shown: JsonObject): void {
    const groups = this.of("tombstones");
    this.unordered ??= whyUnordered(groups, this.of("erasure"));
    const stone = this.stones.verify(leaf, member, entry, new Map(groups.map((event) => [event.index, event.public])), this.unordered);
    if (stone.author === OWNER) {
      if (this.withhold("erasure", this.bundle.withheld.has("event") && !stone.subject.length)) return;
      this.orders ??= ordersBySubject(this.bundle.records.values(), this.trust.origin);
      verifyByOwner(this.orders, stone.subject, stone.subjectSalt, shown, member ? 0 : this.datedBefore(leaf));
    }
    this.report.erased[stone.author] = (this.report.erased[stone.author] ?? 0) + 1;
  }

  /** The latest time that an answer or denial logged before a leaf says. */
  private datedBefore(leaf: number): number {
    const before = this.chained("answer", "denial").filter((event) => event.index < leaf);
    return before.reduce((latest, event) => Math.max(latest, saidAt(event) ?? 0), this.carried.latest);
  }

  /** The record that a leaf names by hash. */
  record(part: JsonObject, name: string): Buffer {
    const digest = fromB64u(part[name], 32).toString("base64url");
    return this.bundle.records.get(digest) ?? refuse(`The bundle lacks the ${name} that the leaf names, or it was altered.`);
  }

  /** The newest event of a kind before another whose public half says this; every leaf is opened by now. */
  before(event: Event, kind: string, name: string, said: string): Event | undefined {
    const by = `${kind} ${name}`;
    let saying = this.saying.get(by);
    if (!saying) {
      this.saying.set(by, (saying = new Map<string, Event[]>()));
      for (const one of this.of(kind)) {
        const what = one.public[name];
        if (typeof what !== "string") continue;
        const known = saying.get(what);
        if (known) known.push(one);
        else saying.set(what, [one]);
      }
    }
    return saying.get(said)?.findLast((known) => known.index < event.index);
  }

  versionsBefore(event: Event): Version[] {
    const logged = (this.versions.get(consentOf(event)) ?? []).filter(({ index }) => index < event.index).map(({ version }) => version);
    return logged.length ? logged : refuse("No verified version of the consent is logged before this event.");
  }

  versionAt(event: Event): Version {
    return this.versionsBefore(event).at(-1) ?? refuse("No version is logged.");
  }

  /** What the record said that was in force at an event of the company that asked: the newest before it. */
  companyAt(event: Event): Company {
    const company = requesterOf(event);
    const record = this.before(event, "company", "company", company) ?? refuse("No record of the company is logged before its question.");
    return readCompany(readJws(this.companyRecord(record), COMPANY), company);
  }

  /** The record that a company's leaf names. */
  companyRecord(event: Event): string {
    return this.record(event.public, "record_sha256").toString("latin1");
  }

  /** Refuse a record that no key of this name, vouched for by the operator and in force by then, signed. */
  verifyService(envelope: Envelope, type: string, name: string, at = LAST_S): void {
    for (const key of this.keys.values()) {
      const [by] = envelope.signatures;
      if (key.name !== name || key.notBefore > at || !by?.id.equals(key.id)) continue;
      verifySigned(envelope, type, key.key);
      const logged = this.of("key").some((event) => event.public["record"] === key.digest);
      if (this.claimsWhole && !logged) refuse(`The ${name} key that signed the ${type} record was never logged.`);
      return;
    }
    refuse(`No ${name} key that the operator vouched for signed the ${type} record.`);
  }

  /** Bring what is carried to the next part of an audit up to date. */
  handOn(): void {
    const { bundle, carried } = this;
    carried.from ??= bundle.from;
    for (const event of this.chained(...CHAINED)) if (this.isWhole(event.index)) carried.last.set(consentOf(event), event);
    for (const [consent, counts] of this.counted) {
      const newest = counts.at(-1);
      if (newest) carried.counted.set(consent, newest);
    }
    for (const event of this.chained("answer", "denial")) carried.latest = Math.max(carried.latest, timeOf(event));
    carried.to = bundle.to;
    carried.checkpoint = this.checkpoint;
    carried.tally?.add(this);
  }
}

const TRUST = ["format", "origin", "log", "operator", "issuer"];

/** Read a trust file: the only keys that are believed. */
export function readTrust(data: Uint8Array): Trust {
  const record = parseJson(data);
  const names = Object.keys(record).filter((name) => name !== "witnesses");
  const [origin, issuer] = [record["origin"], record["issuer"]];
  if (names.length !== TRUST.length || !TRUST.every((name) => name in record) || record["format"] !== "twinvault-trust/v1") {
    throw new Malformed("A trust file has exactly the fields format, issuer, origin, log and operator, and may have witnesses.");
  }
  if (typeof origin !== "string" || typeof issuer !== "string" || !issuer) throw new Malformed("The trust file's origin and issuer must be texts.");
  const log = readKey(spelled(record["log"]), 1);
  if (log.name !== origin) refuse("The log key in the trust file is named for another log than its origin.");
  return { issuer, origin, log, operator: readPublicKey(record["operator"]), witnesses: readWitnesses(record["witnesses"]) };
}

function readWitnesses(value: Json | undefined): WitnessPolicy | undefined {
  if (value === undefined) return undefined;
  const { keys, quorum, max_age_s } = isObject(value) ? value : {};
  const shaped = isObject(value) && Object.keys(value).length === 3 && Array.isArray(keys) && typeof quorum === "number" && typeof max_age_s === "number";
  if (!shaped) throw new Malformed("The trust file's witnesses are a list of keys and two whole numbers.");
  const texts = keys.map(spelled);
  const read = texts.map((text) => readKey(text, 4));
  const [distinct, witnesses] = [new Set(read.map(({ key }) => key.toString("hex"))), new Set(read.map(({ name }) => name))];
  const fit = distinct.size === texts.length && quorum >= 1 && quorum <= witnesses.size && max_age_s >= 1 && max_age_s < LAST_S;
  if (!fit) throw new Malformed("The trust file's witnesses do not fit together.");
  return { keys: texts, quorum, max_age_s };
}
