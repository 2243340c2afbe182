// Accounting on one fixed grid of Renyi orders, and exactly where all noise is Gaussian.
// Canonne, Kamath, Steinke 2020, theorem 4 and proposition 12; Mironov 2017, proposition 1; Balle, Wang 2018, theorem 8.
import { PEOPLE, renyi, sum, type Charge } from "./charge.js";

export const GRID = "grid/1";
const halves = Array.from({ length: 17 }, (_, place) => (place + 4) / 2);
const whole = Array.from({ length: 22 }, (_, place) => place + 11);
export const ORDERS = [1.25, 1.5, 1.75, ...halves, ...whole, 36, 40, 48, 56, 64, 96, 128, 192, 256, 512];

const NANO = 10 ** 9;
const EPSILON = 3; // of a day and of a person's year alike
const DELTA = 1e-6;
const ANALYSIS = 1 - 2 ** -40; // the share of delta that is not kept for the sampler
const EXACT = 1 - 2 ** -20;
const ROUNDED = 8n; // variance of the random rounding that makes continuous noise discrete
const TAXES = ORDERS.map((order) => Math.log1p(-1 / order) - (Math.log(DELTA * ANALYSIS) + Math.log(order)) / (order - 1));

/** What releases cost a person at every order, in billionths: the worse of being trained on and held out. */
export function personCurve(charges: Charge[]): number[] {
  const orders = ORDERS.map(Math.ceil);
  const sets = PEOPLE.map((people) => charges.filter((charge) => charge.people === people).map((charge) => renyi(charge, orders)));
  return orders.map((_, place) => {
    const bound = Math.max(...sets.filter((own) => own.length).map((own) => sum(own.map((curve) => curve[place] ?? 0))));
    return Math.ceil(Math.min(bound * NANO, Number.MAX_SAFE_INTEGER));
  });
}

/** Say whether some order of a curve stays under the cap. */
export const isUnderCap = (nano: (number | bigint)[]): boolean =>
  nano.some((bound, place) => bound <= Math.floor((EPSILON - (TAXES[place] ?? 0)) * NANO));

const ceil = (above: bigint, below: bigint): bigint => (above + below - 1n) / below;

/** Say whether one release of Gaussian noise alone stays under the cap of a day. */
export function isReleaseUnderCap(sensitivity: bigint, sigma: bigint): boolean {
  const [s2, sigma2] = [sensitivity ** 2n, sigma ** 2n];
  if (sigma2 > ROUNDED) {
    const mu2 = ceil(s2 * BigInt(NANO), sigma2 - ROUNDED);
    if (mu2 <= BigInt(Number.MAX_SAFE_INTEGER) && keeps(Math.sqrt(Number(mu2) / NANO))) return true;
  }
  return isUnderCap(ORDERS.map((order) => ceil(BigInt(order * 4) * s2 * BigInt(NANO), 8n * sigma2)));
}

/** Millionths of (sensitivity / sigma) squared, rounded up. */
export const mu2Micro = (sensitivity: bigint, sigma: bigint): bigint => ceil(10n ** 6n * sensitivity ** 2n, sigma ** 2n);

function keeps(mu: number): boolean {
  const [near, far] = [-mu / 2, mu / 2].map((shift) => erfc((EPSILON / mu + shift) / Math.SQRT2) / 2) as [number, number];
  return near - Math.exp(EPSILON) * far <= DELTA * EXACT;
}

/** The complementary error function: its series near zero, its continued fraction beyond (Abramowitz, Stegun 7.1.5 and 7.1.14). */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let [term, total] = [x, x];
    for (let n = 1; Math.abs(term) > 1e-17 * total; n += 1) {
      term *= -(x * x) / n;
      total += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * total;
  }
  let fraction = x;
  for (let n = 200; n > 0; n -= 1) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}
