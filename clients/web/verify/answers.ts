// Answers: what each says, and how its consent's quota counted it.
import { fields } from "./bundle.js";
import { isObject, parseJson, type Json, type JsonObject } from "./json.js";
import { fromB64u, refuse } from "./tree.js";

const FIELDS = [
  "schema_version", "question_id", "kind", "body_sha256", "consent_id", "consent_version", "subject", "predictions", "abstained",
  "confidence", "model_sha256", "releases", "policy_set_sha256", "asked_at", "salt",
];
const SIZES = { question_id: 16, body_sha256: 32, consent_id: 16, subject: 16, model_sha256: 32, policy_set_sha256: 32, salt: 16 };
const KINDS = ["next_choice", "recommend", "propensity", "simulate_reaction", "forecast", "population_map"];
const CONFIDENCE = ["none", "low", "medium", "high"];
const CODE = /^[^\x00-\x20\x7f]{1,128}$/u;
const LAST_SECOND = 253_402_300_799;
const MAX_RELEASES = 4096;
const MAX_TOP_N = 20;
const AGENT_QUOTA = 25;

/** Read an answer, which has exactly one spelling; return what its leaf must say in either half. */
export function readAnswer(data: Buffer): { personal: JsonObject; public: JsonObject } {
  const said = fields(parseJson(data), FIELDS);
  for (const [name, size] of Object.entries(SIZES)) fromB64u(said[name], size);
  const { predictions, releases, kind, confidence } = said;
  if (said["schema_version"] !== "twinvault-answer/1" || !KINDS.includes(kind as string)) refuse("An answer has another version or kind.");
  if (!isWhole(said["consent_version"], 1) || !isWhole(said["asked_at"], 0, LAST_SECOND)) refuse("An answer's numbers are none.");
  if (!Array.isArray(predictions) || predictions.length > MAX_TOP_N || !Array.isArray(releases) || releases.length > MAX_RELEASES) {
    return refuse("An answer's lists are none, or too long.");
  }
  const abstains = Number(predictions.length === 0);
  if (!CONFIDENCE.includes(confidence as string) || Number(confidence === "none") !== abstains || said["abstained"] !== abstains) {
    refuse("An answer abstains, without confidence, exactly when it predicts nothing.");
  }
  const ranked = predictions.map(readPrediction);
  const codes = new Set(ranked.map(({ code }) => code));
  if (codes.size !== ranked.length || !ranked.every((one, place) => place === 0 || follows(ranked[place - 1] ?? one, one))) {
    refuse("Predictions name each code once, by falling score and then by code.");
  }
  for (const release of releases) fromB64u(release, 32);
  const names = releases as string[];
  if (!names.every((name, place) => place === 0 || (names[place - 1] ?? "") < name)) refuse("An answer's releases are not in order.");
  if (spell(said) !== data.toString()) refuse("An answer is not in the one spelling that its leaf commits to.");
  const { consent_id: consent, subject, consent_version: version, question_id, asked_at: at, model_sha256: model } = said;
  const personal = { consent, subject, version, question_id, at } as JsonObject;
  return { personal, public: { question_kind: kind, model, policy_set: said["policy_set_sha256"] } as JsonObject };
}

interface Prediction {
  code: string;
  score: number;
}

function readPrediction(value: Json): Prediction {
  if (!isObject(value)) return refuse("A prediction is none.");
  const { code, score_ppm: score } = fields(value, ["code", "score_ppm"]);
  if (typeof code !== "string" || !CODE.test(code) || typeof score !== "number" || !isWhole(score, 0, 10 ** 6)) {
    return refuse("A prediction has no code, or no score.");
  }
  return { code, score };
}

const follows = (before: Prediction, after: Prediction): boolean =>
  before.score > after.score || (before.score === after.score && Buffer.compare(Buffer.from(before.code), Buffer.from(after.code)) < 0);

const isWhole = (value: Json | undefined, low: number, high = Number.MAX_SAFE_INTEGER): boolean =>
  typeof value === "number" && value >= low && value <= high;

/** Spell JSON with sorted keys and no spaces. */
function spell(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(spell).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${spell(value[name] ?? "")}`).join(",")}}`;
}

/** Say whether a decision was about a software agent, whose quota is smaller. */
export function isAgents(decision: Buffer | undefined): boolean {
  try {
    const context = decision && parseJson(decision)["context"];
    return isObject(context) && Boolean(context["agent"]);
  } catch {
    return false; // then the decision itself does not hold, which is the first verifier's to say
  }
}

/** How the answers of each consent were counted so far. */
export class Counts {
  private readonly newest = new Map<string, { month: string; number: number }>();

  /** Count an answer as the service must: one more than before, from one again only in a later month. */
  count(consent: string, signedQuota: number, agents: boolean, left: Json | undefined, at: number, period: Json | undefined, fromStart: boolean): void {
    const quota = agents ? Math.min(signedQuota, AGENT_QUOTA) : signedQuota;
    if (typeof left !== "number" || left < 0 || left >= quota) return refuse("The consent gave more answers this month than its signed quota.");
    const month = new Date(at * 1000).toISOString().slice(0, 7);
    if (period !== month) refuse("The answer is counted in another month than it was given in.");
    const before = this.newest.get(consent) ?? (fromStart ? { month: "", number: 0 } : undefined);
    const expected = before && (before.month >= month ? before.number : 0) + 1;
    const number = quota - left;
    if (expected !== undefined && number !== expected) refuse(`The answer is number ${expected} of its month, but counted as ${number}.`);
    this.newest.set(consent, { month: before && before.month > month ? before.month : month, number });
  }
}
