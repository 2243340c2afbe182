// Ed25519 by one rule: RFC 8032, 5.1.7, without the cofactor, each key and signature in its one spelling, no point of
// small order. OpenSSL alone takes more: a signature that one verifier takes and another refuses shows two truths.
import { createPublicKey, verify } from "node:crypto";

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const Y_OF_ORDER_8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
const SMALL_ORDER = new Set([0n, 1n, P - 1n, Y_OF_ORDER_8, P - Y_OF_ORDER_8]);

const littleEndian = (data: Uint8Array): bigint => BigInt(`0x${Buffer.from(data).reverse().toString("hex")}`);

/** Say whether an encoding is the only one of its y, and the point is not one of the eight of small order. */
function isProper(point: Uint8Array): boolean {
  const y = littleEndian(point) & (2n ** 255n - 1n);
  return y < P && !SMALL_ORDER.has(y);
}

/** Say whether a signature under these 32 bytes can bind somebody. */
export const isPublicKey = (data: Uint8Array): boolean => data.length === 32 && isProper(data);

/** Verify under a raw public key. */
export function isSigned(publicKey: Uint8Array, message: string | Uint8Array, signature: Uint8Array): boolean {
  if (!isPublicKey(publicKey) || signature.length !== 64) return false;
  if (!isProper(signature.subarray(0, 32)) || littleEndian(signature.subarray(32)) >= L) return false;
  const x = Buffer.from(publicKey).toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return verify(null, typeof message === "string" ? Buffer.from(message) : message, key, signature);
}
