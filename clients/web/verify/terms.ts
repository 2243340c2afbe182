// The terms of a consent: what is asked for, or granted, in the same fields so that one can be compared with the other.
import { Fields } from "./fields.js";
import { ordered, spell, type Json } from "./json.js";
import { refuse } from "./tree.js";
import { CATEGORIES, PURPOSES, SPECIAL_CATEGORIES } from "./vocabulary.js";

export const QUESTIONS: ReadonlySet<string> = new Set(["next_choice", "recommend", "propensity", "simulate_reaction", "forecast", "population_map"]);
const KINDS = new Set(["self", "cohort", "company"]);
const NECESSITY = new Set(["necessary", "optional"]);
const FIXED_GRANTEES: Record<string, string> = { self: "owner", cohort: "operator" };
const MAX_TERMS = 64;
const MAX_QUOTA = 1_000_000;
const GRANTEE = /^[A-Za-z0-9_-]{1,64}$/;
const PERIOD = /^(19[7-9][0-9]|20[0-9][0-9]|21[0-9][0-9])-(0[1-9]|1[0-2])$/;
const SENTENCE = /^[^\u0000-\u001f\u007f]{1,300}$/u;
const DURATION = /^P[1-9][0-9]{0,3}[DMY]$/;

export interface Terms {
  kind: string;
  grantee: string;
  purposes: string[];
  questions: string[];
  necessary: string[];
  optional: string[];
  dataFrom: string;
  dataTo: string;
  notBefore: number;
  notAfter: number;
  quota: number;
  special: string[];
  influence: number;
  agents: number;
  postMortem: string[];
  handling: string;
  spelled: string;
}

/** Read the terms out of a consent or a request for one. */
export function readTerms(value: Json): Terms {
  const said = new Fields(value, "terms");
  const categories: Record<string, string[]> = { necessary: [], optional: [] };
  let last = "";
  for (const item of said.objects("pii_information", MAX_TERMS)) {
    const category = item.word("pii_type", CATEGORIES);
    if (ordered(category, last) <= 0) item.refuse("pii_type", "must come once, in ascending order");
    categories[item.word("necessity", NECESSITY)]?.push(category);
    item.end();
    last = category;
  }
  const quota = said.object("quota");
  quota.exactly("per", "P1M");
  const terms: Terms = {
    kind: said.word("kind", KINDS),
    grantee: said.text("grantee", GRANTEE),
    purposes: said.words("purposes", PURPOSES, MAX_TERMS),
    questions: said.words("questions", QUESTIONS, QUESTIONS.size),
    necessary: categories["necessary"] ?? [],
    optional: categories["optional"] ?? [],
    dataFrom: said.text("data_from", PERIOD),
    dataTo: said.text("data_to", PERIOD),
    notBefore: said.time("not_before"),
    notAfter: said.time("not_after"),
    quota: quota.integer("n", 0, MAX_QUOTA),
    special: said.words("explicit_special", SPECIAL_CATEGORIES, MAX_TERMS),
    influence: said.integer("influence_opt_in", 0, 1),
    agents: said.integer("agent_allowed", 0, 1),
    postMortem: said.words("post_mortem", PURPOSES, MAX_TERMS),
    handling: readHandling(said.mapping("handling")),
    spelled: spell(value),
  };
  quota.end();
  said.end();
  checkTerms(terms);
  return terms;
}

function readHandling(value: Json): string {
  const said = new Fields(value, "handling");
  for (const name of ["pii_controllers", "jurisdiction", "withdrawal_method", "privacy_rights"]) said.text(name, SENTENCE);
  said.words("storage_locations", SENTENCE, 16);
  said.text("retention_period", DURATION);
  said.end();
  return spell(value);
}

function checkTerms(terms: Terms): void {
  const fixed = FIXED_GRANTEES[terms.kind];
  if (fixed !== undefined ? terms.grantee !== fixed : Object.values(FIXED_GRANTEES).includes(terms.grantee)) {
    refuse("A consent names another grantee than its kind has.");
  }
  const both = terms.necessary.some((category) => terms.optional.includes(category));
  if (!terms.purposes.length || !categoriesOf(terms).length || both) refuse("A consent names purposes and categories, each once.");
  const cohort = terms.kind === "cohort";
  if (terms.questions.length > 0 === cohort || terms.quota > 0 === cohort) refuse("A cohort consent allows no question; every other one does.");
  if (terms.dataFrom > terms.dataTo || terms.notBefore >= terms.notAfter) refuse("A window ends before it begins.");
  if (!isPart(terms.postMortem, terms.purposes)) refuse("A post-mortem purpose must be one of the consent's purposes.");
}

export const categoriesOf = (terms: Terms): string[] => [...terms.necessary, ...terms.optional].sort(ordered);

/** Say whether a grant stays inside what was asked. */
export const isNarrower = (granted: Terms, asked: Terms): boolean =>
  granted.kind === asked.kind &&
  granted.grantee === asked.grantee &&
  granted.handling === asked.handling &&
  isPart(granted.purposes, asked.purposes) &&
  isPart(granted.questions, asked.questions) &&
  isPart(granted.necessary, asked.necessary) &&
  isPart(granted.optional, asked.optional) &&
  asked.dataFrom <= granted.dataFrom &&
  granted.dataTo <= asked.dataTo &&
  asked.notBefore <= granted.notBefore &&
  granted.notAfter <= asked.notAfter &&
  granted.quota <= asked.quota &&
  isPart(granted.special, asked.special) &&
  granted.influence <= asked.influence &&
  granted.agents <= asked.agents &&
  isPart(granted.postMortem, asked.postMortem);

const isPart = (some: string[], all: string[]): boolean => some.every((item) => all.includes(item));
