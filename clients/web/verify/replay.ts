// Step 9: every decision is made again, from its record, under the logged rules, on the terms that were signed.
import type { Version } from "./consent.js";
import { requesterOf, timeOf, type Event, type Evidence } from "./evidence.js";
import { isSomething, ordered, same, type JsonObject } from "./json.js";
import { verifyLeft } from "./quota.js";
import { decide, readDecision, readPolicySet, reference, type Decision, type Uid } from "./rules.js";
import { categoriesOf } from "./terms.js";
import { fromB64u, refuse } from "./tree.js";

const NOT_SPENT = ["not-spent"]; // the rules allowed, but no longer when it was to be logged

function readDecided(evidence: Evidence, event: Event): { decision: Decision; address: string } {
  const decision = readDecision(evidence.record(event.personal, "decision"));
  if (isSomething(decision.context["agent"])) evidence.byAgents.add(event.index);
  const address = fromB64u(event.public["policy_set"], 32).toString("base64url");
  if (!evidence.policySets.has(address)) evidence.policySets.set(address, readPolicySet(evidence.record(event.public, "policy_set")));
  if (!evidence.before(event, "policy-set", "policy_set", address)) refuse("The policy set is not logged before the question.");
  const { context } = decision;
  const question = evidence.questions.get(event.index);
  if (question && !same(context["categories"], [question.category])) refuse("The decision was made about another category of data.");
  if (question && context["purpose"] !== question.purpose) refuse("The decision was made for another purpose than was asked for.");
  if (!same(context["question"], event.public["question_kind"]) || context["now"] !== timeOf(event)) {
    refuse("The decision was made about another kind of question or for another time.");
  }
  return { decision, address };
}

/** Decide a denial again: it must be denied, for the reasons that the person is told. */
export function verifyDenial(evidence: Evidence, event: Event): void {
  const { decision, address } = readDecided(evidence, event);
  // While a question is decided its consent may get another version: any that was logged may have decided.
  const decidedOn = verifyTerms(evidence, event, decision, evidence.versionsBefore(event));
  verifyLeft(evidence, event, decision, decidedOn);
  const { allowed, reasons } = decide(decision, address);
  if (!same(event.personal["rules"], allowed ? NOT_SPENT : reasons)) refuse("Replaying the decision does not deny it for the reasons that the leaf tells.");
}

/** Decide an answer again: it must be allowed, for the same purpose, to a company that was not suspended. */
export function verifyDecision(evidence: Evidence, event: Event): void {
  const { decision, address } = readDecided(evidence, event);
  const decidedOn = verifyTerms(evidence, event, decision, [evidence.versionAt(event)]);
  verifyLeft(evidence, event, decision, decidedOn);
  if (!same(decision.context["purpose"], event.public["purpose"])) refuse("The decision was made for another purpose.");
  const status = evidence.before(event, "company-status", "company", requesterOf(event));
  if (status && status.public["status"] !== "active") refuse("The company was suspended when it asked.");
  const { allowed, reasons } = decide(decision, address);
  if (!allowed) refuse(`Replaying the decision denies it: ${reasons.join(", ") || "not-permitted"}.`);
}

/** Return the version that was decided on, one of those that may have been. */
function verifyTerms(evidence: Evidence, event: Event, decision: Decision, versions: Version[]): Version {
  const { context, resource } = decision;
  const used = versions.findLast((version) => decision.entities.some((entity) => same(entity, consentEntity(version, resource))));
  if (!used || !same(context["consent"], reference({ type: "Vault::Consent", id: used.consent }))) {
    return refuse("The decision was made on other terms than the person signed.");
  }
  const { dataFrom, dataTo } = used.terms;
  if (context["data_from"] !== monthNumber(dataFrom) || context["data_to"] !== monthNumber(dataTo)) {
    refuse("The decision was made about other months of data than the consent covers.");
  }
  const [requester, terms] = [event.personal["requester"], versions.at(-1)?.terms ?? used.terms];
  if (terms.grantee !== requester) refuse("Somebody else asked than the consent was given to.");
  if (terms.kind === "company") {
    if (decision.principal.id !== requester) refuse("The decision was made about another requester.");
    if (context["agent"] !== evidence.companyAt(event).agent) refuse("The decision was made about an agent where there is none, or the reverse.");
  }
  return used;
}

const monthNumber = (period: string): number => Number(period.replace("-", ""));

/** The consent as the rules see it. */
function consentEntity({ consent, number, terms, public: said }: Version, twin: Uid): JsonObject {
  const attrs: JsonObject = {
    kind: terms.kind,
    twin: reference(twin),
    version: number,
    state: said["event_state"] ?? "",
    purposes: terms.purposes,
    questions: [...terms.questions].sort(ordered),
    categories: categoriesOf(terms),
    data_from: monthNumber(terms.dataFrom),
    data_to: monthNumber(terms.dataTo),
    not_before: terms.notBefore,
    not_after: terms.notAfter,
    explicit_special: terms.special,
    influence_opt_in: terms.influence,
    agent_allowed: terms.agents,
    post_mortem: terms.postMortem,
  };
  if (terms.kind === "company") attrs["grantee"] = reference({ type: "Vault::Company", id: terms.grantee });
  return { uid: { type: "Vault::Consent", id: consent }, attrs, parents: [] };
}
