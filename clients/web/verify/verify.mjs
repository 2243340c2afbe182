// The verifier's core once more, in another language and sharing no code: whoever doubts the first asks the second.
// Steps 1 checkpoint, 2 inclusion, 3 openings, 6 order and 13 witnesses of docs/protocol.md; Node's own crypto only.
//
//   node verify.mjs BUNDLE TRUST      prints one JSON report; exit status 1 if anything does not hold
import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";

const MAX_BYTES = 512 * 2 ** 20;
const MAX_LINE = 8 * 2 ** 20;
const CHAINED = new Set(["consent-request", "consent", "answer", "denial"]);

class Refused extends Error {}

function refuse(step, leaf, detail) {
  throw Object.assign(new Refused(detail), { step, leaf });
}

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
const leafHash = (entry) => sha256(Buffer.of(0), entry);
const nodeHash = (left, right) => sha256(Buffer.of(1), left, right);

function fromB64u(text, size) {
  const data = typeof text === "string" ? Buffer.from(text, "base64url") : null;
  if (!data || data.toString("base64url") !== text || (size && data.length !== size)) refuse(0, null, "A binary field is not base64url.");
  return data;
}

function fromB64(text, size) {
  const data = Buffer.from(text, "base64");
  if (data.toString("base64") !== text || (size && data.length !== size)) refuse(0, null, "A field is not base64.");
  return data;
}

/** Verify Ed25519 under a raw public key. */
function signed(publicKey, message, signature) {
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: publicKey.toString("base64url") }, format: "jwk" });
  return verifySignature(null, message, key, signature);
}

/** Read `name+id+base64(type || key)` of one type. */
function readKey(text, type) {
  const [name, id, ...rest] = text.split("+");
  const data = fromB64(rest.join("+"), 33);
  const expected = sha256(`${name}\n`, data).subarray(0, 4);
  if (data[0] !== type || id !== expected.toString("hex")) refuse(1, null, "A trusted key does not fit its name and id.");
  return { name, id: expected, key: data.subarray(1) };
}

function readNote(note) {
  const cut = note.lastIndexOf("\n\n");
  if (cut < 0 || !note.endsWith("\n")) refuse(1, null, "A note is text, an empty line and signatures.");
  const lines = note.slice(cut + 2, -1).split("\n").map((line) => {
    const match = /^— ([^ ]+) ([A-Za-z0-9+/=]+)$/u.exec(line);
    if (!match) refuse(1, null, "A signature line is not one.");
    const data = fromB64(match[2]);
    return { name: match[1], id: data.subarray(0, 4), signature: data.subarray(4) };
  });
  return { text: note.slice(0, cut + 1), lines };
}

/** Return the checkpoint that the pinned log signed. */
export function readCheckpoint(note, trust) {
  const log = readKey(trust.log, 1);
  const { text, lines } = readNote(note);
  const line = lines.find((item) => item.name === log.name && item.id.equals(log.id));
  if (!line || !signed(log.key, Buffer.from(text), line.signature)) refuse(1, null, "The pinned log did not sign the checkpoint.");
  const [origin, size, root, ...rest] = text.split("\n");
  if (origin !== trust.origin || !/^(0|[1-9][0-9]{0,15})$/.test(size) || rest.length !== 1 || rest[0]) {
    refuse(1, null, "The checkpoint is not origin, size and root of the pinned log.");
  }
  return { text, lines, size: Number(size), root: fromB64(root, 32) };
}

// Sizes above 2^31 do not fit bit operators: halve and compare as numbers.
const odd = (n) => n % 2 === 1;
const half = (n) => Math.floor(n / 2);

function skipBorder(low, last) {
  while (low && !odd(low)) [low, last] = [half(low), half(last)];
  return [low, last];
}

/** RFC 9162, 2.1.3.2. */
export function includes(hash, index, size, path, root) {
  if (!(index >= 0 && index < size)) return false;
  let [node, low, last] = [hash, index, size - 1];
  for (const sibling of path) {
    if (last === 0) return false;
    if (odd(low) || low === last) {
      node = nodeHash(sibling, node);
      [low, last] = skipBorder(low, last);
    } else node = nodeHash(node, sibling);
    [low, last] = [half(low), half(last)];
  }
  return last === 0 && node.equals(root);
}

/** RFC 9162, 2.1.4.2. */
export function continues(older, newer, proof) {
  if (!(older.size > 0 && older.size <= newer.size)) return false;
  if (older.size === newer.size) return proof.length === 0 && older.root.equals(newer.root);
  if (!proof.length) return false;
  let [low, last] = [older.size - 1, newer.size - 1];
  const path = Number.isInteger(Math.log2(older.size)) ? [older.root, ...proof] : proof;
  while (odd(low)) [low, last] = [half(low), half(last)];
  let [before, after] = [path[0], path[0]];
  for (const sibling of path.slice(1)) {
    if (last === 0) return false;
    if (odd(low) || low === last) {
      [before, after] = [nodeHash(sibling, before), nodeHash(sibling, after)];
      [low, last] = skipBorder(low, last);
    } else after = nodeHash(after, sibling);
    [low, last] = [half(low), half(last)];
  }
  return last === 0 && before.equals(older.root) && after.equals(newer.root);
}

function opened(entry, part, opening) {
  const [salt, body] = [fromB64u(opening?.salt, 64), fromB64u(opening?.body)];
  const committed = part === "public" ? entry.subarray(1, 33) : entry.subarray(33);
  if (!sha256(`twinvault/leaf-${part}/v1\n`, salt, body).equals(committed)) throw new Refused("another body was committed");
  return { body, record: JSON.parse(body.toString("utf8")) };
}

function verifyWitnesses(header, checkpoint, trust, latest, report) {
  const { keys, quorum, max_age_s: age } = trust.witnesses;
  report.checked.witnesses = 1;
  if (!header.witnessed) refuse(13, null, "No witnessed checkpoint came with the bundle.");
  const seen = readCheckpoint(header.witnessed.checkpoint, trust);
  const fresh = keys.map((text) => readKey(text, 4)).filter((witness) => {
    const line = seen.lines.find((item) => item.name === witness.name && item.id.equals(witness.id));
    if (!line || line.signature.length !== 72) return false;
    const at = Number(line.signature.readBigUInt64BE(0));
    return at >= latest - age && signed(witness.key, Buffer.from(`cosignature/v1\ntime ${at}\n${seen.text}`), line.signature.subarray(8));
  });
  if (fresh.length < quorum) refuse(13, null, `${fresh.length} trusted witnesses cosigned lately where ${quorum} must.`);
  if (!continues(seen, checkpoint, header.witnessed.proof.map((item) => fromB64u(item, 32)))) {
    refuse(13, null, "The log does not continue what the witnesses saw.");
  }
}

function verifyOrder(events, whole, failures, report) {
  const last = new Map();
  for (const event of events.filter(({ kind, personal }) => CHAINED.has(kind) && personal?.record.consent)) {
    report.checked.order = (report.checked.order ?? 0) + 1;
    const [now, before] = [event.personal.record, last.get(event.personal.record.consent)];
    last.set(now.consent, event);
    if (!before) continue;
    const step = now.consent_seq - before.personal.record.consent_seq;
    const chained = now.prev === sha256(before.personal.body).toString("base64url");
    const hidden = step !== 1 && whole(before.index) && whole(event.index);
    if (!(step > 0) || hidden || (step === 1 && !chained)) {
      failures.push({ step: 6, leaf: event.index, detail: "An event of this consent is hidden or was exchanged." });
    }
  }
}

/** Verify a bundle's bytes under a parsed trust file. */
export function verifyBundle(data, trust) {
  const report = { leaves: 0, checked: {}, failures: [] };
  try {
    if (data.length > MAX_BYTES) refuse(0, null, "The bundle is too large.");
    const lines = data.toString("utf8").split("\n");
    if (lines.pop() !== "" || !lines.length) refuse(0, null, "The bundle is cut short.");
    if (lines.some((line) => line.length > MAX_LINE)) refuse(0, null, "A line of the bundle is too long.");
    const [header, ...rest] = lines.map((line) => JSON.parse(line));
    if (header.format !== "twinvault-bundle/v1" || rest.length !== header.leaves + header.records) {
      refuse(0, null, "The bundle is not what its header announces.");
    }
    report.checked.checkpoint = 1;
    const checkpoint = readCheckpoint(header.checkpoint, trust);
    const leaves = rest.slice(0, header.leaves);
    const whole = (index) => index >= header.complete_from && index < header.complete_to;
    let before = -1;
    const events = leaves.map((leaf) => {
      if (!Number.isSafeInteger(leaf.index) || leaf.index <= before) refuse(0, null, "Leaves must ascend by index.");
      before = leaf.index;
      const entry = fromB64u(leaf.entry, 65);
      report.checked.inclusion = (report.checked.inclusion ?? 0) + 1;
      const path = leaf.path.map((item) => fromB64u(item, 32));
      if (entry[0] !== 1 || !includes(leafHash(entry), leaf.index, checkpoint.size, path, checkpoint.root)) {
        refuse(2, leaf.index, "The entry is not in the log.");
      }
      return { index: leaf.index, entry, leaf };
    });
    for (const event of events) {
      report.checked.openings = (report.checked.openings ?? 0) + 1;
      try {
        const shown = opened(event.entry, "public", event.leaf.public);
        event.kind = shown.record.kind;
        event.personal = event.leaf.personal && opened(event.entry, "personal", event.leaf.personal);
        event.at = [shown.record.at, event.personal?.record.at].filter(Number.isSafeInteger);
      } catch {
        report.failures.push({ step: 3, leaf: event.index, detail: "An opening is not what the entry committed to." });
      }
    }
    report.checked.openings = (report.checked.openings ?? 0) + 1;
    const present = new Set(events.map(({ index }) => index));
    for (let index = header.complete_from; index < header.complete_to; index += 1) {
      if (!present.has(index)) refuse(3, index, "The bundle claims to be whole but lacks a leaf.");
    }
    verifyOrder(events, whole, report.failures, report);
    const latest = Math.max(0, ...events.flatMap(({ at }) => at ?? []));
    if (trust.witnesses) verifyWitnesses(header, checkpoint, trust, latest, report);
    report.leaves = leaves.length;
  } catch (error) {
    report.failures.push({ step: error.step ?? 0, leaf: error.leaf ?? null, detail: error.step === undefined ? "The bundle cannot be read." : error.message });
  }
  return report;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [bundle, trust] = process.argv.slice(2);
  const tooLarge = statSync(bundle).size > MAX_BYTES;
  const report = tooLarge
    ? { leaves: 0, checked: {}, failures: [{ step: 0, leaf: null, detail: "The bundle is too large." }] }
    : verifyBundle(readFileSync(bundle), JSON.parse(readFileSync(trust, "utf8")));
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exitCode = report.failures.length ? 1 : 0;
}
