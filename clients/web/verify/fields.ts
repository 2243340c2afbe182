// Strict reading of one object: each field once, of its type and range, and none left over. An ignored field would let
// two readers of one signature understand two things, so `end` follows the last one.
import { Malformed, isObject, ordered, type Json, type JsonObject } from "./json.js";
import { fromB64u, readPublicKey } from "./tree.js";

const LAST_SECOND = 253_402_300_799; // of the year 9999
const SHORT = /^.{0,256}$/su;

export class Fields {
  private readonly rest: Map<string, Json>;

  constructor(
    value: Json | undefined,
    private readonly what: string,
  ) {
    if (!isObject(value)) throw new Malformed(`A ${what} must be a JSON object.`);
    this.rest = new Map(Object.entries(value));
  }

  text(name: string, pattern = SHORT): string {
    const value = this.take(name);
    return typeof value === "string" && pattern.test(value) ? value : this.refuse(name, "has another form");
  }

  exactly(name: string, expected: string): void {
    if (this.take(name) !== expected) this.refuse(name, `must be ${expected}`);
  }

  integer(name: string, low = 0, high = Number.MAX_SAFE_INTEGER): number {
    const value = this.take(name);
    return isWithin(value, low, high) ? value : this.refuse(name, `must be an integer from ${low} to ${high}`);
  }

  integers(name: string, low: number, atMost: number): number[] {
    return this.list(name, atMost).map((value) =>
      isWithin(value, low, Number.MAX_SAFE_INTEGER) ? value : this.refuse(name, `must list integers from ${low}`),
    );
  }

  time = (name: string): number => this.integer(name, 0, LAST_SECOND);

  binary(name: string, ...sizes: number[]): Buffer {
    const data = fromB64u(this.take(name));
    return sizes.length === 0 || sizes.includes(data.length) ? data : this.refuse(name, "has another length");
  }

  publicKey = (name: string): Buffer => readPublicKey(this.take(name));

  word(name: string, known: ReadonlySet<string>): string {
    const value = this.take(name);
    return typeof value === "string" && known.has(value) ? value : this.refuse(name, "is not a term of its closed set");
  }

  /** A set of terms, in strictly ascending order so that it has one spelling. */
  words(name: string, known: ReadonlySet<string> | RegExp, atMost: number): string[] {
    const isKnown = (text: string): boolean => (known instanceof RegExp ? known.test(text) : known.has(text));
    const found = this.list(name, atMost).map((value) =>
      typeof value === "string" && isKnown(value) ? value : this.refuse(name, "holds no term of its closed set"),
    );
    if (!isAscending(found)) this.refuse(name, "must list different terms in ascending order");
    return found;
  }

  objects = (name: string, atMost: number): Fields[] => this.list(name, atMost).map((value) => new Fields(value, `${this.what}'s ${name}`));

  object = (name: string): Fields => new Fields(this.take(name), `${this.what}'s ${name}`);

  mapping(name: string): JsonObject {
    const value = this.take(name);
    return isObject(value) ? value : this.refuse(name, "must be an object");
  }

  list(name: string, atMost = Number.MAX_SAFE_INTEGER): Json[] {
    const value = this.take(name);
    return Array.isArray(value) && value.length <= atMost ? value : this.refuse(name, `must be a list of at most ${atMost}`);
  }

  end(): void {
    if (this.rest.size) throw new Malformed(`The ${this.what} has fields that it does not know.`);
  }

  refuse(name: string, why: string): never {
    throw new Malformed(`The ${this.what}'s ${name} ${why}.`);
  }

  private take(name: string): Json {
    const value = this.rest.get(name);
    if (value === undefined) return this.refuse(name, "is missing");
    this.rest.delete(name);
    return value;
  }
}

export const isWithin = (value: Json | undefined, low: number, high: number): value is number =>
  typeof value === "number" && value >= low && value <= high;

export const isAscending = (texts: string[]): boolean =>
  texts.every((text, place) => place === 0 || ordered(texts[place - 1] ?? "", text) < 0);
