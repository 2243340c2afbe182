// What a release about the cohort costs each person whose data it may have read.
// Mironov, Talwar, Zhang 2019, section 3.3; Balle et al. 2020, theorem 21.
import { type Fields } from "./fields.js";

export const PEOPLE = ["trained", "held-out"] as const;
const PEOPLE_NAMES: ReadonlySet<string> = new Set(PEOPLE);
const RELEASES = new Set(["popularity", "habits", "training", "calibration", "certificate"]);
const MECHANISM = "poisson-subsampled gaussian";
export const WHOLE_ORDERS = Array.from({ length: 255 }, (_, place) => place + 2);

export interface Charge {
  release: string;
  people: string;
  noise: number;
  sampleRate: number;
  steps: number;
}

/** Take a charge out of a record. */
export function readCharge(said: Fields): Charge {
  said.exactly("mechanism", MECHANISM);
  const charge: Charge = {
    release: said.word("release", RELEASES),
    people: said.word("people", PEOPLE_NAMES),
    noise: said.integer("noise_multiplier_ppm", 10_000, 10 ** 9) / 1e6,
    sampleRate: said.integer("sample_rate_ppm", 1, 1_000_000) / 1e6,
    steps: said.integer("steps", 1, 1_000_000),
  };
  said.end();
  return charge;
}

/** The Renyi divergence bound of a charge at integer orders. */
export function renyi({ noise, sampleRate, steps }: Charge, orders: number[] = WHOLE_ORDERS): number[] {
  if (sampleRate === 1) return orders.map((order) => (steps * order) / (2 * noise ** 2));
  return orders.map((order) => steps * sampledGaussian(noise, sampleRate, order));
}

/** Person-level epsilon of all releases: within a set of people they compose, across sets the worst counts. */
export function epsilonOf(charges: Charge[], delta: number): number {
  const curves = PEOPLE.map((people) => {
    const own = charges.filter((charge) => charge.people === people).map((charge) => renyi(charge));
    return WHOLE_ORDERS.map((_, place) => own.reduce((total, curve) => total + (curve[place] ?? 0), 0));
  });
  return Math.max(...curves.map((curve) => epsilon(curve, delta)));
}

function epsilon(curve: number[], delta: number): number {
  if (!curve.some(Boolean)) return 0;
  const bounds = curve.map((bound, place) => {
    const order = WHOLE_ORDERS[place] ?? 0;
    return bound + Math.log1p(-1 / order) - (Math.log(delta) + Math.log(order)) / (order - 1);
  });
  return Math.max(0, Math.min(...bounds));
}

const rows = new Map<number, number[]>();

/** Logarithms of the binomial coefficients of an order. */
function logBinomials(order: number): number[] {
  const known = rows.get(order);
  if (known) return known;
  const row: number[] = [];
  let value = 1n;
  for (let k = 0; k <= order; k += 1) {
    row.push(Math.log(Number(value)));
    value = (value * BigInt(order - k)) / BigInt(k + 1);
  }
  rows.set(order, row);
  return row;
}

function sampledGaussian(sigma: number, q: number, order: number): number {
  const terms = logBinomials(order).map((log, k) => log + k * Math.log(q) + (order - k) * Math.log1p(-q) + (k * k - k) / (2 * sigma ** 2));
  const top = Math.max(...terms);
  return (top + Math.log(sum(terms.map((term) => Math.exp(term - top))))) / (order - 1);
}

/** Sum without losing digits (Shewchuk 1997): a training's steps multiply what is lost by up to a million. */
export function sum(values: number[]): number {
  const partials: number[] = [];
  for (let value of values) {
    let kept = 0;
    for (let partial of partials) {
      if (Math.abs(value) < Math.abs(partial)) [value, partial] = [partial, value];
      const high = value + partial;
      const low = partial - (high - value);
      if (low) partials[kept++] = low;
      value = high;
    }
    partials.length = kept;
    partials.push(value);
  }
  return partials.reduceRight((total, partial) => total + partial, 0);
}
