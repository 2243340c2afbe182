// openid-client, a certified FAPI 2.0 relying party, as a company would use it.
import * as oidc from 'openid-client'
import { browse, hear, makeCompany, newKey, now, randomId, say, sha256, sign, publicJwk, signedQuestion, twinQuery, verifyAnswer, liesThatPass } from './kit.mjs'

const { issuer, authAlg, redirectUri, question, trust, invitation } = await hear()
const company = await makeCompany(authAlg, redirectUri)
const metadata = {
  client_name: `Npm Shop ${authAlg}`, redirect_uris: [redirectUri], jwks: { keys: [await publicJwk(company.auth)] },
  token_endpoint_auth_method: 'private_key_jwt', grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'], dpop_bound_access_tokens: true, company_record: company.record,
}
const config = await oidc.dynamicClientRegistration(
  new URL(issuer), metadata, oidc.PrivateKeyJwt(company.auth.privateKey),
  { algorithm: 'oauth2', initialAccessToken: invitation, execute: [oidc.allowInsecureRequests] },
)
const early = await oidc.clientCredentialsGrant(config, undefined, { DPoP: oidc.getDPoPHandle(config, company.dpop) })
  .then(() => 'accepted', (error) => error.error)
say({ registered: config.clientMetadata(), early })
const { terms } = await hear()
const DPoP = oidc.getDPoPHandle(config, company.dpop)
const details = await twinQuery(company, terms)

async function start(changes = {}, given = details) {
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier()
  const expectedState = oidc.randomState()
  const url = await oidc.buildAuthorizationUrlWithPAR(config, {
    redirect_uri: redirectUri, scope: 'twin:ask', state: expectedState,
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256',
    authorization_details: JSON.stringify([given]), ...changes,
  }, { DPoP })
  return { url, checks: { pkceCodeVerifier, expectedState } }
}
const twice = async () => {
  const pushed = new URLSearchParams({
    redirect_uri: redirectUri, state: 'one', code_challenge_method: 'S256',
    code_challenge: await oidc.calculatePKCECodeChallenge(oidc.randomPKCECodeVerifier()),
    authorization_details: JSON.stringify([details]),
  })
  pushed.append('state', 'another')
  return oidc.buildAuthorizationUrlWithPAR(config, pushed, { DPoP })
}
const exchange = (landed, checks) => oidc.authorizationCodeGrant(config, landed, checks, undefined, { DPoP })
const errorOf = async (act) => {
  try {
    await act()
    return 'accepted'
  } catch (error) {
    return error.error ?? `status ${error.status}`
  }
}

// --- the way that works --------------------------------------------------------------------------------------------
const first = await start()
const landed = await browse(first.url)
const tokens = await exchange(landed, first.checks)
const consent = tokens.grant_id
const asked = await signedQuestion(company, issuer, consent, question)
const answer = await oidc.fetchProtectedResource(config, tokens.access_token, asked.url, 'PUT', question, asked.headers, { DPoP })
const bundle = await answer.text()
const about = { question: asked.question, consent, requester: company.id }
const verified = verifyAnswer(bundle, trust, about)
const believed = liesThatPass(bundle, trust, about)
const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP })
const introspected = await oidc.tokenIntrospection(config, refreshed.access_token)
const grantUrl = new URL(`${issuer}/v1/grants/${consent}`)
const queried = await oidc.fetchProtectedResource(config, refreshed.access_token, grantUrl, 'GET', null, undefined, { DPoP })
await oidc.tokenRevocation(config, refreshed.access_token)
const afterRevocation = await oidc.tokenIntrospection(config, refreshed.access_token)

// --- the ways that do not ------------------------------------------------------------------------------------------
const refusals = {}
const denied = await start()
const deniedAt = await browse(denied.url)
refusals.denied = await errorOf(() => exchange(deniedAt, denied.checks))
refusals.plainPkce = await errorOf(() => start({ code_challenge_method: 'plain' }))
refusals.badRedirect = await errorOf(() => start({ redirect_uri: 'https://evil.example/cb' }))
refusals.badDetails = await errorOf(() => start({}, { ...details, quota: { n: 999999, per: 'P1M' } }))
refusals.noChallenge = await errorOf(() => start({ code_challenge_method: '', code_challenge: '' }))
refusals.twice = await errorOf(() => twice())
refusals.otherResource = await errorOf(() => start({ resource: 'https://other.example' }))
const direct = oidc.buildAuthorizationUrl(config, { redirect_uri: redirectUri, response_type: 'code' })
refusals.directAuthorize = (await fetch(direct, { redirect: 'manual' })).status
refusals.requestUriReplay = (await fetch(first.url, { redirect: 'manual' })).status

const ask = async (headers) => {
  const next = await signedQuestion(company, issuer, consent, question)
  const sent = Object.fromEntries(next.headers)
  return [next.url, (extra) => fetch(next.url, { method: 'PUT', body: question, headers: { ...sent, ...headers, ...extra } })]
}
const proof = async (url, changes = {}, key = company.dpop) =>
  sign(key, { alg: 'ES256', typ: 'dpop+jwt', jwk: await publicJwk(key) }, {
    jti: randomId(), htm: 'PUT', htu: url.href, iat: now(), ath: sha256(tokens.access_token), nonce: await nonce(), ...changes,
  })
const nonce = async () => (await fetch(`${issuer}/v1/token`, { method: 'POST' })).headers.get('dpop-nonce')
const bound = { authorization: `DPoP ${tokens.access_token}` }

const [, bearer] = await ask({ authorization: `Bearer ${tokens.access_token}` })
refusals.bearerReplay = (await bearer()).status
const [wrongUrl, wrongHtu] = await ask(bound)
refusals.wrongHtu = (await wrongHtu({ dpop: await proof(wrongUrl, { htu: `${issuer}/v1/elsewhere` }) })).status
const [strangeUrl, strangeKey] = await ask(bound)
refusals.otherKey = (await strangeKey({ dpop: await proof(strangeUrl, {}, await newKey('ES256')) })).status
const [provenUrl, proven] = await ask(bound)
const once = await proof(provenUrl)
refusals.honestProof = (await proven({ dpop: once })).status
refusals.replayedProof = (await proven({ dpop: once })).status

refusals.codeReuse = await errorOf(() => exchange(landed, first.checks))
refusals.afterCodeReuse = await errorOf(() => oidc.refreshTokenGrant(config, refreshed.refresh_token, undefined, { DPoP }))
say({ answerStatus: answer.status, verified, believed, tokens, introspected, queried: await queried.json(), afterRevocation, refusals })
process.exit(0)
