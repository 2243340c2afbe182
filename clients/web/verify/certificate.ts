// The manifest of a model and its certificate: what must be shown before a model may answer.
import { epsilonOf, PEOPLE, readCharge, type Charge } from "./charge.js";
import { Fields } from "./fields.js";
import { parseJson, spell } from "./json.js";
import { refuse, sha256 } from "./tree.js";

const MAX_PPM = 10 ** 12;
const SKEW_S = 300;
const AGE_S = 400 * 86_400;
const BUILT_IN = [
  "a64c545cf43f7506ebf291a74d27ea05a8f47a5a974ef3e1418737a3bfae3c91",
  "d9c85ea0fc3294144f61bf1ad5f69991a33a23082f70a4016f784d22e1152b84",
  "56bb6314e68a482f1af3043cf26a2fb2c92274f7dba36f00687d7ebf8b10a64a",
  "93742fe67541745f9bf24d0ceb4ea0c1108ba154d20f9ca0803a46e07b292134",
  "7640b3188e9168556e092d8c864db25566fccf63ae619678186fd967c860d303",
  "ab194a064754801c098027000ec5f229b99554ada7cc07ba72bddd6a2ddcf797",
  "bf544d81addc140c5ef7b969c84d43c96576157718db6837226e3f8286da4684",
  "2846c82f99992b8d199a8d0ef97b458ce98a90bb129603363e81df0ca8a456fa",
];
const SHIPPED = ["9b09d458d81772aaa72137e79cbc7828b9283935638c729bdef3a8e75e847832"];
const ACTIVITIES = new Set(["light", "heavy"]);
const SIGNED = ["noise_repeats_ppm", "rows_noise_repeats_ppm", "gain_ppm", "calibration_gap_ppm"];
const GROUP = ["people", "gain_ppm", "calibration_gap_ppm", "noise_sd_ppm"] as const;
const MEASURES = [
  "audit_claimed_ppm", "audit_lower_bound_ppm", "audit_canaries", "noise_ratio_ppm", "noise_repeats_ppm", "contribution_ratio_ppm",
  "rows_noise_ratio_ppm", "rows_noise_repeats_ppm", "rows_contribution_ratio_ppm", "gain_ppm", "calibration_gap_ppm", "noise_sd_ppm",
  "held_out",
] as const;

type Measured = Record<(typeof MEASURES)[number], number>;
type Group = Record<(typeof GROUP)[number], number>;

export const CLASSIFIERS = ["reveals-3", "reveals-4"];

const RETAIL_WORDS = "0d310b00d1bd94d9908d8de924ba6a129fb289284443ca1c8e1d48606d6a33b9";
const CONTENT_WORDS = "28bb5bb1b0506c2cf2f945b9f9619f30a22aa002ccdea662346b7bb72b02b3f4";
const WORDS: ReadonlyMap<string, string> = new Map([
  ["7fef27789928d08281b0167a9f47a2a627f84882af0f4e8db244f500d6713895", RETAIL_WORDS],
  ["cb506e96c45df3b140a70eff7c2793642d60af4d6d9006b0396c933ecb3d6321", RETAIL_WORDS],
  ["1a27839f7c8e3ebcccd9880722adc375325cd0d2475ccb32e6d1fa7e14b99562", CONTENT_WORDS],
  ["259fd71b15b4d9a9204252e329b02bfd88f4cdafa37170845c457f83579eb7b1", CONTENT_WORDS],
]);

/** The words that releases published for a feature map; empty for maps that read no text. */
export const wordsOf = (map: Buffer): string => Buffer.from(WORDS.get(map.toString("hex")) ?? "", "hex").toString("base64url");

export interface Manifest {
  digest: string;
  shipped: boolean;
  builtIn: boolean;
  map: Buffer;
  code: string;
  trainedAt: number;
  cohort: number;
  epsilonPpm: number;
  deltaInverse: number;
  charges: Charge[];
  /** The charges as they are spelled. */
  charged: string;
  certificate: { measured: Measured; groups: Group[] } | undefined;
}

/** Read a manifest's bytes, which have one spelling. */
export function readManifest(payload: Buffer): Manifest {
  const record = parseJson(payload);
  const said = new Fields(record, "manifest");
  said.exactly("type", "twinvault-manifest/1");
  said.exactly("neighbours", "one person added or removed");
  const digest = sha256(payload);
  const manifest: Manifest = {
    digest: digest.toString("base64url"),
    shipped: SHIPPED.includes(digest.toString("hex")),
    builtIn: BUILT_IN.includes(said.binary("model_sha256", 32).toString("hex")),
    map: said.binary("map_sha256", 32),
    code: said.binary("code_sha256", 32).toString("base64url"),
    trainedAt: said.time("trained_at"),
    cohort: said.integer("cohort"),
    epsilonPpm: said.integer("epsilon_ppm"),
    deltaInverse: said.integer("delta_inverse", 1),
    charges: said.objects("charges", 64).map(readCharge),
    charged: spell(record["charges"] ?? []),
    certificate: said.objects("certificate", 1).map(readCertificate)[0],
  };
  said.end();
  if (spell(record) !== payload.toString()) refuse("A manifest is not in its one JSON spelling.");
  return manifest;
}

function readCertificate(said: Fields): { measured: Measured; groups: Group[] } {
  const measured = readMeasures(said, MEASURES);
  const activities = new Set<string>();
  const groups = said.objects("groups", ACTIVITIES.size).map((group) => {
    activities.add(group.word("activity", ACTIVITIES));
    const found = readMeasures(group, GROUP);
    group.end();
    return found;
  });
  said.end();
  if (activities.size !== groups.length) refuse("A certificate shows one group twice.");
  return { measured, groups };
}

function readMeasures<Name extends string>(said: Fields, names: readonly Name[]): Record<Name, number> {
  const found = names.map((name) => [name, said.integer(name, SIGNED.includes(name) ? -MAX_PPM : 0, MAX_PPM)]);
  return Object.fromEntries(found) as Record<Name, number>;
}

/** Refuse a manifest whose epsilon is not what its charges add up to. */
export function verifyEpsilon({ charges, deltaInverse, epsilonPpm }: Manifest): void {
  const due = Math.ceil(epsilonOf(charges, 1 / deltaInverse) * 1e6 - 1);
  if (Math.abs(due - epsilonPpm) > 2) refuse("The manifest's epsilon is not what its charges add up to.");
}

/** Refuse a model that may not serve at this time. */
export function verifyCertificate(manifest: Manifest, at: number): void {
  const { builtIn, certificate, charges, cohort, deltaInverse, epsilonPpm } = manifest;
  const age = at - manifest.trainedAt;
  if ((age < -SKEW_S || age > AGE_S) && !builtIn) refuse("The model was trained too long ago or in the future.");
  if (!certificate) {
    if (!builtIn || charges.length || epsilonPpm || cohort) refuse("Only a built-in model that learned from nobody needs no certificate.");
    return;
  }
  if (!PEOPLE.every((people) => charges.some((charge) => charge.people === people))) refuse("The manifest does not charge both sets of people.");
  if (deltaInverse < Math.max(1_000_000, 10 * cohort)) refuse("The manifest's delta is too large for its cohort.");
  verifyEpsilon(manifest);
  if (epsilonPpm > 3_000_000) refuse("The model cost its contributors more privacy than is allowed.");
  verifyMeasured(certificate.measured);
  certificate.groups.forEach(verifyGroup);
  if (cohort < 100) refuse("The cohort is too small to train a model on.");
}

const isNear = (ratioPpm: number): boolean => Math.abs(ratioPpm - 1_000_000) <= 50_000;

function verifyMeasured(c: Measured): void {
  const margin = 2 * c.noise_sd_ppm; // 97.7 % one-sided over the release's own noise
  demand([
    [c.audit_claimed_ppm > 0 && c.audit_claimed_ppm <= 1_000_000, "The trainer was audited at too large an epsilon."],
    [c.audit_canaries >= 4_000, "The trainer was audited with too few canaries."],
    [c.audit_lower_bound_ppm <= c.audit_claimed_ppm, "The audit refuted the trainer's claimed epsilon."],
    [isNear(c.noise_ratio_ppm), "The trainer's noise is not what is charged."],
    [Math.abs(c.noise_repeats_ppm) <= 100_000, "The trainer repeats its noise."],
    [c.contribution_ratio_ppm <= 1_001_000, "One person moves the model beyond the clip."],
    [isNear(c.rows_noise_ratio_ppm), "The rows' noise is not what is charged."],
    [Math.abs(c.rows_noise_repeats_ppm) <= 100_000, "Rows repeat their noise."],
    [c.rows_contribution_ratio_ppm <= 1_000_000, "One day moves the rows beyond what is charged."],
    [c.held_out >= 20, "Too few people were held out to measure the model on."],
    [c.gain_ppm - margin >= -30_000, "The model is not shown to predict as well as popularity."],
    [Math.abs(c.calibration_gap_ppm) + margin <= 100_000, "The model is not shown to be calibrated."],
  ]);
}

function verifyGroup(group: Group): void {
  const margin = 2 * group.noise_sd_ppm;
  demand([
    [group.people >= 20, "The certificate shows a group that is too small to be shown."],
    [group.gain_ppm + margin >= -30_000, "The model is shown to predict worse than popularity for a group."],
    [Math.abs(group.calibration_gap_ppm) - margin <= 100_000, "The model is badly calibrated for a group."],
  ]);
}

function demand(each: [boolean, string][]): void {
  for (const [met, sentence] of each) if (!met) refuse(sentence);
}
