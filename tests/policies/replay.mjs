// Decides stored decisions again with Cedar's own JavaScript build: one JSON line in, one out.
// First line: the policy set's bytes. Every further line: a decision record's bytes.
import { createInterface } from "node:readline";
import * as cedar from "@cedar-policy/cedar-wasm/nodejs";

function done(answer) {
  if (answer.type !== "success") throw new Error(JSON.stringify(answer.errors));
  return answer;
}

function prepare(line) {
  const { schema, policies } = JSON.parse(line);
  const text = Object.keys(policies).sort().map((name) => policies[name]).join("\n");
  const parts = done(cedar.policySetTextToParts(text)).policies;
  const named = Object.fromEntries(parts.map((part) => [done(cedar.policyToJson(part)).json.annotations.id, part]));
  const found = cedar.validate({ schema, policies: { staticPolicies: named } });
  if (done(found).validationErrors.length > 0) throw new Error(JSON.stringify(found.validationErrors));
  done(cedar.preparseSchema("schema", schema));
  done(cedar.preparsePolicySet("rules", { staticPolicies: named }));
  return { version: cedar.getCedarSDKVersion(), rules: Object.keys(named).sort() };
}

function replay(line) {
  const { principal, action, resource, context, entities } = JSON.parse(line);
  const answer = cedar.statefulIsAuthorized({
    principal, action: { type: "Vault::Action", id: action }, resource, context, entities,
    preparsedSchemaName: "schema", validateRequest: true, preparsedPolicySetId: "rules",
  });
  if (answer.type !== "success") return { decision: "failure" };
  const { decision, diagnostics } = answer.response;
  return { decision, reasons: diagnostics.reason.sort(), errors: diagnostics.errors.length };
}

let step = prepare;
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(step(line)));
  step = replay;
}
