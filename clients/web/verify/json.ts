// JSON as signed records spell it. JSON.parse would take what the other verifier refuses: fractions, booleans, null,
// keys named twice, integers beyond 2^53, depth without end.

export type Json = string | number | Json[] | JsonObject;
export interface JsonObject {
  [name: string]: Json;
}

export class Malformed extends Error {}

const MAX_DEPTH = 16;
const HALF_PAIR = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const INTEGER = /-?(?:0|[1-9][0-9]*)(?![0-9.eE])/y;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Read one JSON object, or refuse. */
export function parseJson(data: Uint8Array): JsonObject {
  let text: string;
  try {
    text = UTF8.decode(data);
  } catch {
    throw new Malformed("It is not UTF-8.");
  }
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  if (!isObject(value)) throw new Malformed("A record must be a JSON object.");
  return value;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && !Array.isArray(value);
}

/** Spell a value that should be a text, so that one that is something else is told apart and not found. */
export function spelled(value: Json | undefined): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

/** Order texts by code points: JavaScript's own order is that of UTF-16. */
export const ordered = (one: string, other: string): number => Buffer.compare(Buffer.from(one), Buffer.from(other));

/** The one spelling of JSON that is signed: sorted keys and no spaces. */
export function spell(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(spell).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const names = Object.keys(value).sort(ordered);
  return `{${names.map((name) => `${JSON.stringify(name)}:${spell(value[name] ?? "")}`).join(",")}}`;
}

/** Say whether two fields, or the absence of both, are the same. */
export function same(one: Json | undefined, other: Json | undefined): boolean {
  return one === other || (one !== undefined && other !== undefined && spell(one) === spell(other));
}

/** Say whether a value is something: not absent, zero or empty. */
export const isSomething = (value: Json | undefined): boolean =>
  Array.isArray(value) ? value.length > 0 : isObject(value) ? Object.keys(value).length > 0 : Boolean(value);

/** Say whether a part of a leaf says all of this. */
export const agree = (part: JsonObject, said: JsonObject): boolean =>
  Object.entries(said).every(([name, value]) => same(part[name], value));

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  value(depth: number): Json {
    if (depth > MAX_DEPTH) throw new Malformed(`It is nested deeper than ${MAX_DEPTH} levels.`);
    this.take(SPACE);
    const first = this.text[this.at];
    if (first === "{") return this.object(depth);
    if (first === "[") return this.array(depth);
    if (first === '"') return this.string();
    const number = this.take(INTEGER);
    if (number === undefined) throw new Malformed("It holds something else than texts, whole numbers, lists and objects.");
    const value = Number(number);
    if (!Number.isSafeInteger(value)) throw new Malformed("It holds an integer beyond 2^53 - 1.");
    return value + 0; // of two zeros keep one
  }

  end(): void {
    this.take(SPACE);
    if (this.at !== this.text.length) throw new Malformed("Something follows the record.");
  }

  private object(depth: number): JsonObject {
    const found: JsonObject = Object.create(null) as JsonObject; // so that no name is special
    this.at += 1;
    if (this.closes("}")) return found;
    do {
      this.take(SPACE);
      const name = this.string();
      if (name in found) throw new Malformed("It names a key twice.");
      this.take(SPACE);
      if (this.text[this.at] !== ":") throw new Malformed("It is not JSON.");
      this.at += 1;
      found[name] = this.value(depth + 1);
    } while (this.goesOn("}"));
    return found;
  }

  private array(depth: number): Json[] {
    const found: Json[] = [];
    this.at += 1;
    if (this.closes("]")) return found;
    do found.push(this.value(depth + 1));
    while (this.goesOn("]"));
    return found;
  }

  private string(): string {
    const spelled = this.take(STRING);
    if (spelled === undefined) throw new Malformed("It is not JSON.");
    const text = JSON.parse(spelled) as string;
    if (HALF_PAIR.test(text)) throw new Malformed("It holds half of a surrogate pair.");
    return text;
  }

  private closes(end: string): boolean {
    this.take(SPACE);
    if (this.text[this.at] !== end) return false;
    this.at += 1;
    return true;
  }

  private goesOn(end: string): boolean {
    this.take(SPACE);
    const next = this.text[this.at];
    if (next !== "," && next !== end) throw new Malformed("It is not JSON.");
    this.at += 1;
    return next === ",";
  }

  private take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text)?.[0];
    this.at += match?.length ?? 0;
    return match;
  }
}
