// A company as a stranger would write it: WebCrypto keys, jose for what it signs, nothing of TwinVault's.
import { createHash, randomBytes, webcrypto } from 'node:crypto'
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
  return { url, headers: new Headers({ 'Question-Signature': signature, 'Content-Type': 'application/json' }) }
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
