// Step 16: what was released cost what is said, stayed under the published caps, and is the one that was published.
import { GRID, ORDERS, isReleaseUnderCap, isUnderCap, mu2Micro, personCurve } from "./accounting.js";
import { readManifest, verifyEpsilon, type Manifest } from "./certificate.js";
import { readCharge, type Charge } from "./charge.js";
import { readEnvelope } from "./envelope.js";
import type { Event, Evidence } from "./evidence.js";
import { Fields } from "./fields.js";
import { agree, isObject, spell, type Json } from "./json.js";
import { refuse } from "./tree.js";

const NEARBY = 64; // leaves of one transaction lie near each other, unless the range ends between them
const ROUNDING = 2; // billionths by which the logarithms of two machines may differ
const YEAR = /^[0-9]{4}$/;

export function verifyLedger(evidence: Evidence): void {
  for (const [kind, check] of [["manifest", verifyModel], ["training", verifyTraining], ["release", verifyRelease]] as const) {
    for (const event of evidence.of(kind)) if (evidence.isWhole(event.index)) evidence.attempt("ledger", event.index, () => check(evidence, event));
  }
}

function readLogged(evidence: Evidence, event: Event): Manifest {
  const envelope = readEnvelope(evidence.record(event.public, "record"));
  const manifest = readManifest(envelope.payload);
  if (manifest.digest !== event.public["model"]) refuse("The leaf of a model names another manifest than its record.");
  evidence.verifyService(envelope, "twinvault/manifest/v1", "processor-sign");
  return manifest;
}

const isAbout = (training: Event, model: Event): boolean =>
  training.public["outcome"] === "released" && training.public["model"] === model.public["model"];

function verifyModel(evidence: Evidence, event: Event): void {
  const manifest = readLogged(evidence, event);
  verifyEpsilon(manifest);
  if (!manifest.charges.length || manifest.shipped) return;
  if (evidence.of("training").some((training) => training.index > event.index && isAbout(training, event))) return;
  if (evidence.bundle.to - event.index > NEARBY) refuse("The model was learned from people, but no training is logged that charged them.");
}

interface Training {
  year: string;
  release: string;
  map: string;
  code: string;
  charges: Charge[];
  charged: string;
  nano: number[];
}

function readTraining(row: Json): Training {
  const said = new Fields(row, "charge");
  said.exactly("unit", "person");
  said.exactly("subject", "everyone");
  said.exactly("orders", GRID);
  const mechanism = said.object("mechanism");
  mechanism.exactly("name", "backbone/1");
  const charges = mechanism.objects("charges", 64).map(readCharge);
  const named = isObject(row) && isObject(row["mechanism"]) ? (row["mechanism"]["charges"] ?? []) : [];
  const nano = said.integers("renyi_nano", 0, ORDERS.length);
  if (!charges.length || nano.length !== ORDERS.length) refuse("A training charges something, with one bound for every order of its grid.");
  return {
    year: said.text("window", YEAR),
    release: said.binary("release", 32).toString("base64url"),
    map: mechanism.binary("map", 32).toString("base64url"),
    code: said.binary("code", 32).toString("base64url"),
    charges,
    charged: spell(named),
    nano,
  };
}

function verifyTraining(evidence: Evidence, event: Event): void {
  const { trainings, years } = evidence.carried;
  const row = readTraining(event.personal["charge"] ?? refuse("What a training cost everybody is not shown."));
  if (!agree(event.public, { release_id: row.release, map: row.map, code: row.code })) refuse("A training's leaf and its row of the ledger do not say the same.");
  if (trainings.has(row.release)) refuse("Two trainings are logged under one charge.");
  trainings.add(row.release);
  const cost = personCurve(row.charges);
  if (row.nano.some((said, place) => Math.abs(said - (cost[place] ?? 0)) > ROUNDING)) refuse("A training was charged another sum than its mechanism costs.");
  const before = years.get(row.year);
  const year = row.nano.map((bound, place) => bound + (before?.[place] ?? 0));
  years.set(row.year, year);
  if (event.public["outcome"] === "released") verifyPublished(evidence, event, row);
  if (!isUnderCap(year)) refuse(`All trainings of ${row.year} together cost each person more than the cap of a year.`);
}

function verifyPublished(evidence: Evidence, event: Event, row: Training): void {
  const published = evidence.of("manifest").find((model) => isAbout(event, model));
  if (!published || published.index > event.index) return refuse("A training was charged whose model is not the one that was published.");
  const { map, code, cohort, epsilonPpm, deltaInverse, charged } = readLogged(evidence, published);
  const said = { map: map.toString("base64url"), code, cohort, epsilon_ppm: epsilonPpm, delta_inverse: deltaInverse };
  if (!agree(event.public, said) || charged !== row.charged) refuse("The published model and the training that was charged for it do not say the same.");
}

function verifyRelease(_: Evidence, event: Event): void {
  const said = new Fields(event.public, "release");
  const [sensitivity, sigma] = [BigInt(said.integer("sensitivity", 1)), BigInt(said.integer("sigma", 1))];
  if (BigInt(said.integer("mu2_micro")) !== mu2Micro(sensitivity, sigma)) refuse("A release was charged another sum than its noise costs.");
  if (!isReleaseUnderCap(sensitivity, sigma)) refuse("A release alone cost a day more than its cap.");
}
