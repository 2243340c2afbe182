// Steps 7, 8 and 10: answers, the questions that they answer, and the models that answered.
import { readAnswer, type Answer } from "./answers.js";
import { CLASSIFIERS, readManifest, verifyCertificate, wordsOf } from "./certificate.js";
import { readEnvelope } from "./envelope.js";
import { SKEW_S, requesterOf, timeOf, type Event, type Evidence } from "./evidence.js";
import { Malformed, agree, isSomething, spelled } from "./json.js";
import { claimsOf, mayName, readQuestion, readSignedQuestion, verifyQuestion } from "./question.js";
import { verifyQuota } from "./quota.js";
import { verifyDecision, verifyDenial } from "./replay.js";
import { Invalid, refuse, sha256 } from "./tree.js";

export function verifyAnswers(evidence: Evidence): void {
  const { withheld, records } = evidence.bundle;
  for (const event of evidence.chained("answer")) {
    if (!evidence.withhold("answer", withheld.has("answer"))) evidence.attempt("answer", event.index, () => verifyAnswer(evidence, event));
    const answer = evidence.answers.get(event.index);
    if (!evidence.withhold("question", withheld.has("question")) && answer) {
      evidence.attempt("question", event.index, () => verifyAsked(evidence, event, answer));
    }
    evidence.attempt("decision", event.index, () => verifyDecision(evidence, event));
    evidence.attempt("certificate", event.index, () => verifyModel(evidence, event));
    evidence.attempt("quota", event.index, () => verifyQuota(evidence, event));
  }
  for (const event of evidence.chained("denial")) {
    if (records.has(spelled(event.personal["question"]))) evidence.attempt("question", event.index, () => verifyRefused(evidence, event));
    if (isDecided(event)) evidence.attempt("decision", event.index, () => verifyDenial(evidence, event));
  }
}

/** Say whether a denial was decided by rules; what is about no consent was not. */
export const isDecided = (event: Event): boolean => isSomething(event.personal["decision"]);

function verifyAnswer(evidence: Evidence, event: Event): void {
  const answer = readAnswer(evidence.record(event.personal, "record"));
  if (!agree(event.personal, answer.personal) || !agree(event.public, answer.public)) refuse("The answer's record and its leaf do not say the same.");
  evidence.answers.set(event.index, answer);
}

function verifyAsked(evidence: Evidence, event: Event, answer: Answer): void {
  withSignature(evidence, event, (body) => {
    const question = readQuestion(body);
    const same = sha256(body).toString("base64url") === answer.body && question.kind === answer.public["question_kind"];
    if (!same || question.purpose !== event.public["purpose"]) refuse("The answer is to another question than the one that its leaf names.");
    if (!mayName(question, answer.codes)) refuse("The answer names more than was asked for, or what was not offered.");
    evidence.questions.set(event.index, question);
  });
}

function verifyRefused(evidence: Evidence, event: Event): void {
  withSignature(evidence, event, (body) => {
    const question = readQuestion(body);
    if (question.kind !== event.public["question_kind"]) refuse("The denial is of another question than the one that its leaf names.");
    evidence.questions.set(event.index, question);
  });
}

/** Look at a question's body, and whether the company signed it; the owner's session signs none. */
function withSignature(evidence: Evidence, event: Event, look: (body: Buffer) => void): void {
  const { jws, body } = readSignedQuestion(evidence.record(event.personal, "question"));
  const version = evidence.versionAt(event);
  let refusal: unknown;
  if (version.terms.kind === "company") {
    const company = evidence.companyAt(event);
    const claims = claimsOf(requesterOf(event), evidence.trust.issuer, version.consent, event.personal["question_id"], body);
    const at = timeOf(event);
    try {
      verifyQuestion(jws, company.key, claims, at);
    } catch (error) {
      if (!(error instanceof Invalid || error instanceof Malformed)) throw error;
      refusal = error; // what the question says is compared with its decision all the same
    }
  }
  look(body);
  if (refusal !== undefined) throw refusal;
}

function verifyModel(evidence: Evidence, event: Event): void {
  const envelope = readEnvelope(evidence.record(event.public, "manifest"));
  const manifest = readManifest(envelope.payload);
  if (manifest.digest !== event.public["model"]) refuse("The answer names another model than the manifest describes.");
  evidence.verifyService(envelope, "twinvault/manifest/v1", "processor-sign", timeOf(event));
  if (!evidence.before(event, "manifest", "record", envelope.digest.toString("base64url"))) refuse("The model's manifest is not logged before the answer.");
  verifyCertificate(manifest, timeOf(event));
  if (!CLASSIFIERS.includes(spelled(event.public["classifier"]))) refuse("The answer names a classifier that no release published.");
  if (event.public["words"] !== wordsOf(manifest.map)) refuse("The answer names other words for reading texts than were published for the model's map.");
  const withdrawn = evidence.before(event, "model-withdrawn", "model", manifest.digest);
  if (withdrawn && timeOf(event) > timeOf(withdrawn) + SKEW_S) refuse("The model was withdrawn before the question was asked.");
}
