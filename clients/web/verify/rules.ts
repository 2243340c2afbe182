// Policy sets and decisions: Cedar's own JavaScript build decides again, behind the checks that Cedar alone lacks. It
// skips a `forbid` that errors, and a rule whose hierarchy is incomplete.
import { setFlagsFromString } from "node:v8";

import * as cedar from "@cedar-policy/cedar-wasm/nodejs";

import { Fields } from "./fields.js";
import { Malformed, isObject, ordered, parseJson, spell, type Json, type JsonObject } from "./json.js";
import { fromB64u, refuse, sha256 } from "./tree.js";

// Node 20.20 ends with "unreachable code" in V8's deoptimizer once it throws away code into which it inlined calls of
// WebAssembly: some hundred policy sets made ready in one process are enough.
setFlagsFromString("--no-turbo-inline-js-wasm-calls");

const ACTIONS = new Set(["refresh", "train", "ask", "population_map"]);
const TYPE = /^Vault::[A-Za-z]{1,40}$/;
const ID = /^[A-Za-z0-9._:-]{1,128}$/;
const MAX_ENTITIES = 16;
const VISIBILITY: unknown[] = ["company", "owner"];

export interface PolicySet {
  address: string;
  version: number;
  predecessor: string;
}

export interface Uid {
  type: string;
  id: string;
}

export interface Decision {
  action: string;
  principal: Uid;
  resource: Uid;
  context: JsonObject;
  entities: JsonObject[];
  policySet: string;
}

export interface Outcome {
  allowed: boolean;
  reasons: string[];
}

const prepared = new Map<string, PolicySet>(); // by the address of their bytes, so that an entry is never stale

/** Make a set ready from the bytes that it is addressed by. */
export function readPolicySet(source: Buffer): PolicySet {
  const address = sha256(source).toString("base64url");
  const known = prepared.get(address) ?? prepareSet(source, address);
  prepared.set(address, known);
  return known;
}

function prepareSet(source: Buffer, address: string): PolicySet {
  const record = parseJson(source);
  const { schema, policies, version = 1, predecessor = "" } = record;
  const before = fromB64u(predecessor);
  if (typeof schema !== "string" || !isObject(policies) || typeof version !== "number") return refuse("A policy set is a schema, policies, a version and a predecessor.");
  if (!(version === 1 && before.length === 0) && !(version >= 2 && before.length === 32)) refuse("Only version 1 has no predecessor.");
  const whole: JsonObject = before.length ? { schema, policies, version, predecessor } : { schema, policies };
  const texts = Object.keys(policies).sort(ordered).map((name) => policies[name]);
  if (!texts.every((text) => typeof text === "string") || spell(whole) !== source.toString()) {
    refuse("A policy set is not in the one spelling that its address is made from.");
  }
  prepare(address, schema, texts.join("\n"));
  return { address, version, predecessor: before.toString("base64url") };
}

function prepare(address: string, schema: string, text: string): void {
  const parts = done(cedar.policySetTextToParts(text));
  if (parts.policy_templates.length) refuse("A policy set holds no templates.");
  const rules = new Map<string, string>();
  let permits = 0;
  for (const part of parts.policies) {
    const rule = done(cedar.policyToJson(part)).json;
    const name = idOf(rule);
    if (rules.has(name)) refuse(`Two rules have the id ${name}.`);
    rules.set(name, part);
    permits += Number(rule.effect === "permit");
  }
  if (!permits) refuse("A policy set needs at least one permit.");
  const policies = { staticPolicies: Object.fromEntries(rules) };
  if (done(cedar.validate({ schema, policies })).validationErrors.length) refuse("The policies do not fit their schema.");
  done(cedar.preparseSchema(address, schema));
  done(cedar.preparsePolicySet(address, policies));
}

function done<T extends { type: string }>(answer: T): Extract<T, { type: "success" }> {
  if (answer.type !== "success") refuse("The policies or their schema do not parse.");
  return answer as Extract<T, { type: "success" }>;
}

function idOf(rule: cedar.PolicyJson): string {
  const notes = (rule.annotations ?? {}) as Record<string, unknown>;
  const { id, sentence, visibility } = notes;
  if (typeof id !== "string" || !id || !sentence || !VISIBILITY.includes(visibility)) return refuse("A rule needs an @id, a @sentence and a @visibility.");
  const scopes = [rule.principal, rule.resource] as { op: string }[];
  const conditions = [...parts(rule.conditions)];
  if (scopes.some((scope) => scope.op === "in" || "in" in scope) || conditions.some(([name]) => name === "in")) {
    refuse(`The rule ${id} depends on a hierarchy; rules read attributes only.`);
  }
  if (!onlyForbids(rule)) refuse(`The rule ${id} reads a person's profile otherwise than to forbid.`);
  return id;
}

/** Say whether a profile that says less can make the rule forbid nothing more, and permit nothing less. */
function onlyForbids(rule: cedar.PolicyJson): boolean {
  if (rule.effect === "permit") return !readsProfile(rule.conditions);
  return rule.conditions.every(({ kind, body }) => (kind === "when" ? needsFacts(body) : !readsProfile(body)));
}

const readsProfile = (tree: unknown): boolean => [...parts(tree)].some(([name, item]) => name === "attr" && item === "profile");

/** Say whether a condition names facts of a profile only as `profile.contains("fact")` that must hold too. */
function needsFacts(condition: unknown): boolean {
  const [both, contains] = [at(condition, "&&"), at(condition, "contains")];
  if (at(both, "left") !== undefined && at(both, "right") !== undefined) return needsFacts(at(both, "left")) && needsFacts(at(both, "right"));
  const names = at(at(at(contains, "left"), "."), "attr") === "profile" && typeof at(at(contains, "right"), "Value") === "string";
  return names || !readsProfile(condition);
}

const at = (tree: unknown, name: string): unknown =>
  typeof tree === "object" && tree !== null && Object.hasOwn(tree, name) ? (tree as Record<string, unknown>)[name] : undefined;

function* parts(tree: unknown): Generator<[string, unknown]> {
  if (typeof tree !== "object" || tree === null) return;
  for (const [name, item] of Object.entries(tree)) {
    yield [name, item];
    yield* parts(item);
  }
}

/** Read a decision record, which holds everything that the decision depended on. */
export function readDecision(data: Buffer): Decision {
  const said = new Fields(parseJson(data), "decision");
  const decision: Decision = {
    action: said.word("action", ACTIONS),
    principal: readUid(said.object("principal")),
    resource: readUid(said.object("resource")),
    context: said.mapping("context"),
    entities: said.objects("entities", MAX_ENTITIES).map(readEntity),
    policySet: said.binary("policy_set_sha256", 32).toString("base64url"),
  };
  said.end();
  const names = decision.entities.map(({ uid }) => spell(uid ?? ""));
  if (new Set(names).size !== names.length) throw new Malformed("A decision record describes the same entity twice.");
  return decision;
}

function readUid(said: Fields): Uid {
  const uid = { type: said.text("type", TYPE), id: said.text("id", ID) };
  said.end();
  return uid;
}

function readEntity(said: Fields): JsonObject {
  const entity = { uid: { ...readUid(said.object("uid")) }, attrs: said.mapping("attrs"), parents: said.list("parents", 0) };
  said.end();
  return entity;
}

/** How attributes and contexts point to an entity. */
export const reference = ({ type, id }: Uid): JsonObject => ({ __entity: { type, id } });

/** Decide again, failing closed: allowed is only what is allowed for a named reason, without any error. */
export function decide(decision: Decision, address: string): Outcome {
  if (decision.policySet !== address) refuse("The decision was made under another policy set than the leaf names.");
  const described = new Set(decision.entities.map(({ uid }) => nameOf(uid)));
  const own = [nameOf({ ...decision.principal }), nameOf({ ...decision.resource })];
  const named = own.concat(references(decision.context), decision.entities.flatMap(({ attrs }) => references(attrs)));
  if (!named.every((name) => described.has(name))) return { allowed: false, reasons: [] };
  const { principal, resource, context, entities } = JSON.parse(spell({ ...decision } as unknown as JsonObject));
  const answer = cedar.statefulIsAuthorized({
    principal, action: { type: "Vault::Action", id: decision.action }, resource, context, entities,
    preparsedSchemaName: address, preparsedPolicySetId: address, validateRequest: true,
  });
  if (answer.type !== "success") return { allowed: false, reasons: [] };
  const { reason, errors } = answer.response.diagnostics;
  const reasons = [...reason].sort(ordered);
  return { allowed: answer.response.decision === "allow" && reasons.length > 0 && errors.length === 0, reasons };
}

const nameOf = (uid: Json | undefined): string => (isObject(uid) ? `${String(uid["type"])} ${String(uid["id"])}` : "");

/** Both spellings of a reference: the engine takes a bare type and id for one as well. */
function references(value: Json | undefined): string[] {
  if (value === undefined || typeof value !== "object") return [];
  const inside = Object.values(value).flatMap(references);
  const own = isObject(value) && Object.keys(value).length === 2 && "type" in value && "id" in value;
  return own ? [nameOf(value), ...inside] : inside;
}
