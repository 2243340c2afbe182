// Show every signed thing of a file to the second verifier: node signed_many.mjs DIST FILE prints whether each was taken.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(resolve(dist, name)).href);
const { isSigned } = await load("ed25519.js");
const { readEnvelope, verifySigned } = await load("envelope.js");
const { readJwk, readJws, verifyJws } = await load("jws.js");
const { Malformed } = await load("json.js");
const { Invalid, cosignedAt, readCheckpoint, readKey } = await load("tree.js");

const ORIGIN = "log.example/one";
const LOG = readKey(readFileSync(`${file}.log`, "utf8"), 1);
const READ = {
  raw: ({ key, message, data }) => isSigned(key, message, data),
  note: ({ key_text, data }) => readCheckpoint(data.toString(), readKey(key_text, 1), ORIGIN),
  cosignature: ({ key_text, data }) => cosignedAt(readCheckpoint(data.toString(), LOG, ORIGIN), { keys: [key_text], quorum: 1, max_age_s: 1 }),
  envelope: ({ key, data }) => verifySigned(readEnvelope(data), "twinvault/freeze/v1", key),
  jws: ({ key, data }) => verifyJws(readJws(data.toString(), "question+jwt"), readJwk({ kty: "OKP", crv: "Ed25519", x: key.toString("base64url") })),
};

for (const line of readFileSync(file, "utf8").trimEnd().split("\n")) {
  const { entry, key_text, ...binary } = JSON.parse(line);
  const given = { key_text, ...Object.fromEntries(Object.entries(binary).map(([name, text]) => [name, Buffer.from(text, "base64")])) };
  let taken;
  try {
    taken = READ[entry](given) !== false;
  } catch (error) {
    if (!(error instanceof Invalid || error instanceof Malformed)) throw error;
    taken = false;
  }
  process.stdout.write(`${taken}\n`);
}
