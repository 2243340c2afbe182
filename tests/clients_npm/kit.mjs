// A company as a stranger would write it: WebCrypto keys, jose for what it signs, nothing of TwinVault's.
import { createHash, createPublicKey, randomBytes, verify, webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'
import * as jose from 'jose'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
export const hear = async () => JSON.parse((await lines.next()).value)
export const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')

export const now = () => Math.floor(Date.now() / 1000)
export const sha256 = (data) => createHash('sha256').update(data).digest('base64url')
export const randomId = () => randomBytes(16).toString('base64url')

const ALGORITHMS = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  PS256: { name: 'RSA-PSS', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
  Ed25519: { name: 'Ed25519' },
}
export const newKey = (alg) => webcrypto.subtle.generateKey(ALGORITHMS[alg], true, ['sign', 'verify'])

export const publicJwk = async (pair) => {
  const { kty, crv, x, y, n, e } = await jose.exportJWK(pair.publicKey)
  return JSON.parse(JSON.stringify({ kty, crv, x, y, n, e }))
}
const thumbprint = async (pair) => jose.calculateJwkThumbprint(await publicJwk(pair))

export const sign = (pair, header, claims) =>
  new jose.CompactSign(new TextEncoder().encode(JSON.stringify(claims))).setProtectedHeader(header).sign(pair.privateKey)

export async function makeCompany(authAlg, redirectUri) {
  const [auth, question, dpop] = await Promise.all([newKey(authAlg), newKey('Ed25519'), newKey('ES256')])
  const id = Buffer.from(await thumbprint(question), 'base64url').subarray(0, 16).toString('base64url')
  const record = await sign(question, { alg: 'Ed25519', typ: 'twinvault-company+jwt' }, {
    company_id: id, version: 1, name: `Npm Shop ${authAlg}`, contact: 'privacy@shop.example', agent: 0,
    redirect_uris: [redirectUri], client_auth_key: await publicJwk(auth), question_key: await publicJwk(question),
    issued_at: now(),
  })
  return { id, auth, question, dpop, record, redirectUri }
}

// The consent request, once as the signed record and once as authorization_details.
export async function twinQuery(company, terms) {
  const mine = { ...terms, grantee: company.id }
  const request = await sign(company.question, { alg: 'Ed25519', typ: 'twinvault-consent-request+jwt' }, {
    schema_version: 'twinvault-consent/1', request_id: randomId(), terms: mine, issued_at: now(),
  })
  const types = (necessity) => mine.pii_information.filter((item) => item.necessity === necessity).map((item) => item.pii_type)
  return {
    type: 'twin_query', questions: mine.questions, purposes: mine.purposes,
    categories: { necessary: types('necessary'), optional: types('optional') },
    window: { from: mine.data_from, to: mine.data_to }, quota: mine.quota,
    duration: { from: mine.not_before, to: mine.not_after },
    options: {
      explicit_special: mine.explicit_special, influence_opt_in: mine.influence_opt_in,
      agent_allowed: mine.agent_allowed, post_mortem: mine.post_mortem,
    },
    request,
  }
}

export async function signedQuestion(company, issuer, consent, body) {
  const question = randomId()
  const signature = await sign(company.question, { alg: 'Ed25519', typ: 'question+jwt', kid: await thumbprint(company.question) }, {
    iss: company.id, aud: issuer, consent, question, body: sha256(body), iat: now(),
  })
  const url = new URL(`${issuer}/v1/consents/${consent}/answers/${question}`)
  return { url, question, headers: new Headers({ 'Question-Signature': signature, 'Content-Type': 'application/json' }) }
}

// A browser that follows nothing by itself: it loads the page, lets the owner decide, and says where it is sent.
export async function browse(url) {
  const first = await fetch(url, { redirect: 'manual' })
  const cookie = (first.headers.get('set-cookie') ?? '').split(';')[0]
  const code = /<code>([A-Z-]+)<\/code>/.exec(await first.text())?.[1]
  say({ code })
  for (let tries = 0; tries < 100; tries += 1) {
    const page = await fetch(url, { redirect: 'manual', headers: { cookie } })
    if (page.status === 303) return new URL(page.headers.get('location'))
    if (page.status !== 200) throw new Error(`the page says ${page.status}`)
    await new Promise((done) => setTimeout(done, 100))
  }
  throw new Error('nobody decided')
}

// --- the receipt: checked with Node's own crypto, the pinned log key and nothing that the bundle brings along ------
const b64u = (text) => Buffer.from(text, 'base64url')
const sha = (...parts) => createHash('sha256').update(Buffer.concat(parts.map((part) => Buffer.from(part)))).digest()
const refuse = (why) => {
  throw new Error(why)
}

// A C2SP signed note: text, an empty line, and signatures by named keys. Returns the tree that the log key signed.
function checkpointOf(note, trust) {
  const [name, keyId, ...encoded] = trust.log.split('+')
  const key = Buffer.from(encoded.join('+'), 'base64').subarray(1)
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: key.toString('base64url') }, format: 'jwk' })
  const end = note.lastIndexOf('\n\n')
  const text = note.slice(0, end + 1)
  const signatures = note.slice(end + 2).split('\n').map((line) => /^— (\S+) (\S+)$/.exec(line)).filter(Boolean)
  const mine = signatures.map(([, by, data]) => [by, Buffer.from(data, 'base64')])
    .filter(([by, data]) => by === name && data.subarray(0, 4).toString('hex') === keyId)
  if (mine.length !== 1) refuse('the pinned log key did not sign the checkpoint')
  if (!verify(null, Buffer.from(text), publicKey, mine[0][1].subarray(4))) refuse('the checkpoint signature is wrong')
  const [origin, size, root] = text.split('\n')
  if (origin !== trust.origin) refuse('the checkpoint is of another log')
  return { size: Number(size), root: Buffer.from(root, 'base64') }
}

// RFC 9162 section 2.1.3.2.
function verifyInclusion(entry, index, path, { size, root }) {
  let [fn, sn, hash] = [index, size - 1, sha([0], entry)]
  if (!(index >= 0 && index < size)) refuse('the tree has no such leaf')
  for (const sibling of path.map(b64u)) {
    if (sn === 0) refuse('the path is too long')
    if (fn % 2 === 1 || fn === sn) {
      hash = sha([1], sibling, hash)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)]
    } else {
      hash = sha([1], hash, sibling)
    }
    ;[fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)]
  }
  if (sn !== 0 || !hash.equals(root)) refuse(`leaf ${index} is not in the tree that the log signed`)
}

function opened(entry, half, opening) {
  const committed = half === 'public' ? entry.subarray(1, 33) : entry.subarray(33)
  const body = b64u(opening.body)
  if (!sha(`twinvault/leaf-${half}/v1\n`, b64u(opening.salt), body).equals(committed)) refuse(`the ${half} half was exchanged`)
  return JSON.parse(body)
}

// Returns the answer to this question if the log proves it: under this consent, asked by this company.
export function verifyAnswer(text, trust, { question, consent, requester }) {
  const lines = text.split('\n')
  if (lines.pop() !== '') refuse('the bundle is cut short')
  const [header, ...rest] = lines.map((line) => JSON.parse(line))
  const tree = checkpointOf(header.checkpoint, trust)
  const leaves = rest.slice(0, header.leaves)
  const records = new Map(rest.slice(header.leaves).map(({ record }) => [sha(b64u(record)).toString('base64url'), b64u(record)]))
  let answer
  for (const leaf of leaves) {
    const entry = b64u(leaf.entry)
    if (entry.length !== 65 || entry[0] !== 1) refuse('an entry is of another form')
    verifyInclusion(entry, leaf.index, leaf.path, tree)
    const { kind } = opened(entry, 'public', leaf.public)
    const personal = leaf.personal ? opened(entry, 'personal', leaf.personal) : {}
    if (kind !== 'answer' || personal.question_id !== question) continue
    if (personal.consent !== consent || personal.requester !== requester) refuse('the answer is another party\'s')
    answer = JSON.parse(records.get(personal.record) ?? refuse('the answer is not the one that was logged'))
  }
  return { leaves: leaves.length, answer: answer ?? refuse('the log proves no answer to this question') }
}

// Each of these is one lie; every one must be noticed.
export function liesThatPass(text, trust, about) {
  const lines = text.split('\n')
  const header = JSON.parse(lines[0])
  const change = (number, edit) => {
    const copy = [...lines]
    const line = JSON.parse(copy[number])
    edit(line)
    copy[number] = JSON.stringify(line)
    return copy.join('\n')
  }
  const flip = (encoded) => {
    const bytes = b64u(encoded)
    bytes[bytes.length - 1] ^= 1
    return bytes.toString('base64url')
  }
  const leaf = 1 + lines.slice(1, 1 + header.leaves).findIndex((line) => {
    const { public: opening } = JSON.parse(line)
    return JSON.parse(b64u(opening.body)).kind === 'answer'
  })
  const [name, keyId] = trust.log.split('+')
  const other = [name, keyId, Buffer.concat([Buffer.from([1]), randomBytes(32)]).toString('base64')].join('+')
  const lies = {
    otherLogKey: [text, { ...trust, log: other }, about],
    otherLog: [text, { ...trust, origin: 'other.example/log' }, about],
    otherQuestion: [text, trust, { ...about, question: randomId() }],
    otherConsent: [text, trust, { ...about, consent: randomId() }],
    otherRequester: [text, trust, { ...about, requester: randomId() }],
    entry: [change(leaf, (line) => { line.entry = flip(line.entry) }), trust, about],
    index: [change(leaf, (line) => { line.index += 1 }), trust, about],
    path: [change(leaf, (line) => { line.path[0] = flip(line.path[0]) }), trust, about],
    shortPath: [change(leaf, (line) => { line.path.pop() }), trust, about],
    opening: [change(leaf, (line) => { line.personal.body = flip(line.personal.body) }), trust, about],
    checkpoint: [change(0, (line) => { line.checkpoint = line.checkpoint.replace(/\n(\d+)\n/, (_, size) => `\n${Number(size) + 1}\n`) }), trust, about],
    records: [[...lines.slice(0, 1 + header.leaves), ''].join('\n'), trust, about],
    cut: [text.slice(0, -1), trust, about],
  }
  return Object.entries(lies).filter(([, lie]) => {
    try {
      verifyAnswer(...lie)
      return true
    } catch {
      return false
    }
  }).map(([name]) => name)
}
