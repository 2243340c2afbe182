// Answers: what each says, in its one spelling.
import { fields } from "./bundle.js";
import { isObject, ordered, parseJson, spell, type Json, type JsonObject } from "./json.js";
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

export interface Answer {
  /** What the halves of its leaf must say. */
  personal: JsonObject;
  public: JsonObject;
  body: Json | undefined;
  codes: Set<string>;
}

/** Read an answer, which has exactly one spelling. */
export function readAnswer(data: Buffer): Answer {
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
  return { personal, public: { question_kind: kind, model, policy_set: said["policy_set_sha256"] } as JsonObject, body: said["body_sha256"], codes };
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
  before.score > after.score || (before.score === after.score && ordered(before.code, after.code) < 0);

const isWhole = (value: Json | undefined, low: number, high = Number.MAX_SAFE_INTEGER): boolean =>
  typeof value === "number" && value >= low && value <= high;
