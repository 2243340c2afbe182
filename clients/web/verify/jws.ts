// Signed JSON of companies: public keys by value and compact JWS. The algorithm follows from the key, never from the
// message. RFC 7515, 7517, 7518, 7638, 9864.
import { constants, createPublicKey, verify, type KeyObject } from "node:crypto";

import { isPublicKey, isSigned } from "./ed25519.js";
import { isObject, parseJson, same, spell, type Json, type JsonObject } from "./json.js";
import { fromB64u, refuse, sha256 } from "./tree.js";

export const QUESTION = "question+jwt";
export const COMPANY = "twinvault-company+jwt";
export const REQUEST = "twinvault-consent-request+jwt";
const MAX_JWS = 8192;
const MAX_JWK = 1024;
const RSA_BYTES = [256, 384, 512];
const PARAMETERS = ["alg", "typ", "kid", "jwk"];
const PRIVATE = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
const MEMBERS: Record<string, string[]> = { EC: ["crv", "x", "y"], OKP: ["crv", "x"], RSA: ["n", "e"] };
const ALGORITHMS: Record<string, string[]> = { EC: ["ES256"], OKP: ["Ed25519", "EdDSA"], RSA: ["PS256"] };
const CURVES: Record<string, string> = { EC: "P-256", OKP: "Ed25519" };

export interface JwsKey {
  kid: string;
  kind: string;
  algorithms: string[];
  key: KeyObject;
  raw: Buffer; // of an Ed25519 key
}

export interface Jws {
  header: JsonObject;
  claims: JsonObject;
  signed: Buffer;
  signature: Buffer;
}

/** Take a compact JWS of one type apart; its signature is not checked. */
export function readJws(text: string, type: string): Jws {
  const segments = text.split(".");
  const [header = "", claims = "", signature = ""] = segments;
  if (text.length > MAX_JWS || segments.length !== 3) refuse("A signed JSON is too long, or not three segments.");
  const jws: Jws = {
    header: parseJson(fromB64u(header)),
    claims: parseJson(fromB64u(claims)),
    signed: Buffer.from(`${header}.${claims}`),
    signature: fromB64u(signature),
  };
  if (!Object.keys(jws.header).every((name) => PARAMETERS.includes(name))) refuse("A signed JSON's header holds more than alg, typ, kid and jwk.");
  if (jws.header["typ"] !== type) refuse(`A signed JSON is not of the type ${type}.`);
  return jws;
}

/** Check that a key signed, and return the claims. */
export function verifyJws(jws: Jws, by: JwsKey): JsonObject {
  const { alg, kid } = jws.header;
  if (typeof alg !== "string" || !by.algorithms.includes(alg)) refuse("A signed JSON has another algorithm than its key.");
  if (kid !== undefined && kid !== by.kid) refuse("The key id is not the thumbprint of the key.");
  if (!isSignedBy(by, jws.signed, jws.signature)) refuse("A signed JSON's signature does not verify.");
  return jws.claims;
}

function isSignedBy({ kind, key, raw }: JwsKey, message: Buffer, signature: Buffer): boolean {
  if (kind === "OKP") return isSigned(raw, message, signature);
  if (kind === "EC") return signature.length === 64 && verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature);
  return verify("sha256", message, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }, signature);
}

/** Return the public key of a JWK: P-256, Ed25519, or RSA of 2048 to 4096 bits with exponent 65537. */
export function readJwk(jwk: Json | undefined): JwsKey {
  const sentence = "A public key must be P-256, Ed25519, or RSA of 2048, 3072 or 4096 bits, in its one spelling.";
  if (!isObject(jwk) || PRIVATE.some((name) => name in jwk)) return refuse(sentence);
  const kind = typeof jwk["kty"] === "string" ? jwk["kty"] : "";
  const names = Object.hasOwn(MEMBERS, kind) ? MEMBERS[kind] : undefined;
  if (!names || !names.every((name) => typeof jwk[name] === "string")) return refuse(sentence);
  const members = Object.fromEntries(["kty", ...names].map((name) => [name, jwk[name] ?? ""])) as JsonObject;
  const text = spell(members);
  if (text.length > MAX_JWK || members["crv"] !== CURVES[kind]) refuse(sentence);
  if (kind === "RSA" && !(RSA_BYTES.includes(fromB64u(members["n"]).length) && members["e"] === "AQAB")) refuse(sentence);
  const key = importKey(members) ?? refuse(sentence);
  const raw = kind === "OKP" ? fromB64u(members["x"]) : Buffer.of();
  if (kind === "OKP" && !isPublicKey(raw)) refuse("A public key is not in its one spelling, or of small order.");
  const algorithms = ALGORITHMS[kind] ?? [];
  const kid = sha256(text).toString("base64url");
  if (jwk["kid"] !== undefined && jwk["kid"] !== kid) refuse("A public key's kid is not its thumbprint.");
  if (jwk["alg"] !== undefined && !algorithms.includes(jwk["alg"] as string)) refuse("A public key's alg is not that of its kind.");
  return { kid, kind, algorithms, key, raw };
}

function importKey(members: JsonObject): KeyObject | undefined {
  try {
    const key = createPublicKey({ key: { ...members }, format: "jwk" });
    const spelled = key.export({ format: "jwk" });
    return same({ ...spelled } as JsonObject, members) ? key : undefined;
  } catch {
    return undefined; // no point of its curve, say
  }
}
