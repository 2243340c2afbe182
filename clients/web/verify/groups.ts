// Step 18: every denial that shares a leaf with others is shown, or has a tombstone; step 9 decides each again.
import { isDecided } from "./asked.js";
import { timeOf, type Event, type Evidence } from "./evidence.js";
import { verifyBoundEvent } from "./ordered.js";
import { verifyDenial } from "./replay.js";
import { open, type Member } from "./shown.js";
import { leafHash, refuse, treeRoot } from "./tree.js";

const MINUTE_S = 60;

export function verifyGroups(evidence: Evidence): void {
  const groups = new Map(evidence.of("denials").map((event) => [event.index, event]));
  for (const index of groups.keys()) if (!evidence.isWhole(index)) groups.delete(index);
  for (const index of new Set([...groups.keys(), ...evidence.members.groups()])) {
    const [group, members] = [groups.get(index), evidence.members.of(index)];
    evidence.attempt("groups", index, () => verifyGroup(group, members));
    for (const member of group ? members : []) evidence.attempt("groups", index, () => verifyMember(evidence, group, member));
  }
  for (const denial of evidence.grouped) {
    if (isDecided(denial)) evidence.attempt("decision", denial.index, () => verifyDenial(evidence, denial));
  }
}

function verifyGroup(group: Event | undefined, members: Member[]): void {
  if (!group) return refuse("Events are shown of a leaf that stands for none.");
  const placed = members.every((member, place) => member.place === place);
  if (!members.length || members.length !== group.public["count"] || !placed) refuse("Not all events of the leaf are shown, each once.");
  const root = treeRoot(members.map((member) => leafHash(member.entry)));
  if (group.public["root"] !== root.toString("base64url")) refuse("The events shown are not those that the leaf stands for.");
}

function verifyMember(evidence: Evidence, group: Event | undefined, member: Member): void {
  const index = member.group;
  const shown = open(member.entry, "public", member.public);
  if (shown["kind"] !== "denial") refuse("An event of a group of denials is none.");
  if (!member.personal) {
    if (!evidence.mayBeClosed(index, member.place + 1)) evidence.verifyErased(index, member.place + 1, member.entry, shown);
    return;
  }
  const personal = open(member.entry, "personal", member.personal);
  const denial: Event = { index, kind: "denial", entry: member.entry, public: shown, personal, body: member.personal.body };
  evidence.grouped.push(denial);
  if (personal["consent"] !== undefined) {
    verifyBoundEvent(shown, personal);
    if (personal["subject"] !== evidence.versionAt(denial).subject) refuse("A denial of a group names another person than signed the consent.");
  }
  const at = timeOf(denial);
  if (personal["requester"] !== group?.personal["requester"] || at - (at % MINUTE_S) !== group?.personal["minute"]) {
    refuse("A denial stands in the group of another company or minute.");
  }
}
