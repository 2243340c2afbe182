// Questions: the closed catalogue, the company's signature, and what the company's logged record says of how it asks.
import { Fields } from "./fields.js";
import { parseJson, same, type Json, type JsonObject } from "./json.js";
import { QUESTION, readJwk, readJws, verifyJws, type Jws, type JwsKey } from "./jws.js";
import { QUESTIONS } from "./terms.js";
import { fromB64u, refuse, sha256 } from "./tree.js";
import { CATEGORIES, PURPOSES } from "./vocabulary.js";

const MAX_TOP_N = 20;
const MAX_CANDIDATES = 500;
const MAX_AGE_S = 60;
const MAX_SKEW_S = 10;
const CODE = /^[^\u0000-\u0020\u007f]{1,128}$/u;
const TEXT = /^[^\u0000-\u001f\u007f]{0,200}$/u;
const PPM = 1_000_000;
const VISITORS = new Set(["new", "returning", "other"]);
const SESSION: Record<string, [number, number]> = {
  administrative_pages: [0, 10_000],
  administrative_s: [0, 86_400],
  informational_pages: [0, 10_000],
  informational_s: [0, 86_400],
  product_pages: [0, 10_000],
  product_s: [0, 86_400],
  bounce_rate_ppm: [0, PPM],
  exit_rate_ppm: [0, PPM],
  special_day_ppm: [0, PPM],
  page_value_milli: [-1, 1_000_000_000],
  month: [1, 12],
  weekend: [0, 1],
};

export interface Question {
  kind: string;
  category: string;
  purpose: string;
  topN: number;
  /** What an answer may name; anything if undefined. */
  offered: Set<string> | undefined;
}

/** Read a question's body. */
export function readQuestion(body: Buffer): Question {
  const said = new Fields(parseJson(body), "question");
  const kind = said.word("kind", QUESTIONS);
  const [category, purpose] = [said.word("category", CATEGORIES), said.word("purpose", PURPOSES)];
  const question: Question = { kind, category, purpose, topN: 1, offered: undefined };
  if (kind === "next_choice") question.topN = said.integer("top_n", 1, MAX_TOP_N);
  else if (kind === "recommend") {
    const codes = said.objects("candidates", MAX_CANDIDATES).map(readCandidate);
    question.offered = new Set(codes);
    if (!codes.length || question.offered.size !== codes.length) said.refuse("candidates", "must name each code once");
    question.topN = said.integer("top_n", 1, Math.min(MAX_TOP_N, codes.length));
  } else if (kind === "propensity") {
    readSession(said.object("session"));
    question.offered = new Set(["purchase"]);
  } else refuse("A question is of a kind that no service answers.");
  said.end();
  return question;
}

function readCandidate(said: Fields): string {
  const code = said.text("code", CODE);
  said.text("text", TEXT);
  said.end();
  return code;
}

function readSession(said: Fields): void {
  for (const [name, [low, high]] of Object.entries(SESSION)) said.integer(name, low, high);
  said.word("visitor", VISITORS);
  said.end();
}

export const mayName = ({ topN, offered }: Question, codes: Set<string>): boolean =>
  codes.size <= topN && (offered === undefined || [...codes].every((code) => offered.has(code)));

/** Read the record of a question that a leaf names. */
export function readSignedQuestion(record: Buffer): { jws: string; body: Buffer } {
  const said = new Fields(parseJson(record), "record of a question");
  const found = { jws: said.text("jws", /^/), body: said.binary("body") };
  said.binary("salt", 16);
  said.end();
  return found;
}

/** Check that a company signed these claims about a question, at about this time. */
export function verifyQuestion(text: string, key: JwsKey, claims: JsonObject, at: number): void {
  const jws = readJws(text, QUESTION);
  if (jws.header["kid"] !== key.kid) refuse("The kid is not the thumbprint of the company's question key.");
  const { iat, ...said } = verifyJws(jws, key);
  if (!same(said, claims)) refuse("The signature is over another server, consent, question id or body.");
  if (typeof iat !== "number" || at - iat < -MAX_SKEW_S || at - iat > MAX_AGE_S) refuse("The question was signed long before or after it arrived.");
}

export interface Company {
  version: number;
  agent: number;
  key: JwsKey;
}

/** Read a company's logged record: a first one is signed by its own key, a later one by that of the one before. */
export function readCompany(jws: Jws, company: string): Company {
  const { company_id: named, version, agent } = jws.claims;
  const key = readJwk(jws.claims["question_key"]);
  if (named !== company) refuse("The company's logged record is about another company.");
  if (typeof version !== "number" || typeof agent !== "number") return refuse("The company's record states no version, or not whether it is an agent's.");
  if (version === 1) {
    verifyJws(jws, key);
    if (fromB64u(key.kid).subarray(0, 16).toString("base64url") !== company) refuse("The company is not named after its first question key.");
  }
  return { version, agent, key };
}

/** The claims that a question's signature must make. */
export const claimsOf = (company: string, issuer: string, consent: string, question: Json | undefined, body: Buffer): JsonObject => ({
  iss: company,
  aud: issuer,
  consent,
  question: fromB64u(question).toString("base64url"),
  body: sha256(body).toString("base64url"),
});
