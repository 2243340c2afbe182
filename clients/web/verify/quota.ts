// Step 11: what every answer counted, and what every decision was told to be left of its consent's quota.
import type { Version } from "./consent.js";
import { SKEW_S, consentOf, timeOf, type Counted, type Event, type Evidence } from "./evidence.js";
import { refuse } from "./tree.js";
import type { Decision } from "./rules.js";

const AGENT_QUOTA = 25;
const SETTLED_S = 2 * SKEW_S; // by then an answer is logged, whichever clocks it and the next question were read from
const NOTHING: Counted = { index: -1, at: 0, month: "", number: 0 };

const usedIn = (one: Counted, period: string): number => (one.month >= period ? one.number : 0);

/** What the quota of the event's consent had counted before it, newest first, as far back as the log is looked at. */
function* countedBefore(evidence: Evidence, event: Event): Generator<Counted> {
  const consent = consentOf(event);
  yield* (evidence.counted.get(consent) ?? []).filter(({ index }) => index < event.index).reverse();
  const [given, carried] = [evidence.versions.get(consent)?.[0], evidence.carried.counted.get(consent)];
  if (carried) yield carried;
  else if (given && given.version.number === 1 && evidence.isLookedAt(given.index)) yield NOTHING;
}

/** Count as the service must: one more than the answer before, from one again only in a later month. */
export function verifyQuota(evidence: Evidence, event: Event): void {
  const signed = evidence.versionAt(event).terms.quota;
  const quota = evidence.byAgents.has(event.index) ? Math.min(signed, AGENT_QUOTA) : signed;
  const left = event.personal["quota_left"];
  if (typeof left !== "number" || left < 0 || left >= quota) return refuse("The consent gave more answers this month than its signed quota.");
  const [number, period] = [quota - left, verifyPeriod(event)];
  const before = countedBefore(evidence, event).next().value as Counted | undefined;
  const expected = before ? usedIn(before, period) + 1 : number;
  if (number !== expected) refuse(`The answer is number ${expected} of its month under this consent, but counted as ${number}.`);
  const month = before && before.month > period ? before.month : period;
  const counts = evidence.counted.get(consentOf(event)) ?? [];
  evidence.counted.set(consentOf(event), counts);
  counts.push({ index: event.index, at: timeOf(event), month, number });
}

/** Return the month of an event, which must be the one that it happened in. */
function verifyPeriod(event: Event): string {
  const period = new Date(timeOf(event) * 1000).toISOString().slice(0, 7);
  if (event.public["period"] !== period) refuse("The event is counted in another month than it happened in.");
  return period;
}

/** Check that a decision was told a count that was right at some moment between its question and its leaf. */
export function verifyLeft(evidence: Evidence, event: Event, { context }: Decision, decidedOn: Version): void {
  const [{ quota }, left] = [decidedOn.terms, context["quota_left"]];
  if (typeof left !== "number" || left > quota) return refuse("The decision was told that more is left than the signed quota.");
  const used = quota - left;
  if (context["agent_quota_left"] !== Math.min(quota, AGENT_QUOTA) - used) refuse("The decision was told two counts that do not fit together.");
  const period = verifyPeriod(event);
  for (const one of countedBefore(evidence, event)) {
    if (usedIn(one, period) === used) return;
    if (one.at < timeOf(event) - SETTLED_S) refuse(`The decision was told that ${used} answers of the month were used, which never was so.`);
  }
}
