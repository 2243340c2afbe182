// oauth4webapi, the layer below: every request and response by hand, and parameters that no honest client sends.
import * as oauth from 'oauth4webapi'
import { browse, hear, makeCompany, newKey, publicJwk, say, signedQuestion, twinQuery, verifyAnswer, liesThatPass } from './kit.mjs'

const { issuer, authAlg, redirectUri, question, trust, invitation } = await hear()
const company = await makeCompany(authAlg, redirectUri)
const insecure = { [oauth.allowInsecureRequests]: true }
const resource = await oauth.processResourceDiscoveryResponse(new URL(issuer), await oauth.resourceDiscoveryRequest(new URL(issuer), insecure))
const [named] = resource.authorization_servers
const discovered = await oauth.discoveryRequest(new URL(named), { algorithm: 'oauth2', ...insecure })
const as = await oauth.processDiscoveryResponse(new URL(issuer), discovered)
const metadata = {
  client_name: `Npm Shop ${authAlg}`, redirect_uris: [redirectUri], jwks: { keys: [await publicJwk(company.auth)] },
  token_endpoint_auth_method: 'private_key_jwt', grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'], dpop_bound_access_tokens: true, company_record: company.record,
}
const filed = await oauth.dynamicClientRegistrationRequest(as, metadata, { ...insecure, initialAccessToken: invitation })
const registered = await oauth.processDynamicClientRegistrationResponse(filed)
const client = { client_id: registered.client_id }
const clientAuth = oauth.PrivateKeyJwt(company.auth.privateKey)
const DPoP = oauth.DPoP(client, company.dpop)
const options = { DPoP, ...insecure }
// The first try has no nonce; the library learns it from the refusal.
async function twice(send, process) {
  try {
    return await process(await send())
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    return { ...(await process(await send())), asked_for_nonce: true }
  }
}

const first = { DPoP: oauth.DPoP(client, company.dpop), ...insecure } // its nonce is not the flow's
const own = async () => oauth.clientCredentialsGrantRequest(as, client, clientAuth, new URLSearchParams(), first)
const early = await twice(own, (response) => oauth.processClientCredentialsResponse(as, client, response))
  .then(() => 'accepted', (error) => error.error)
say({ registered, early })
const { terms } = await hear()

const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const parameters = {
  response_type: 'code', redirect_uri: redirectUri, state, code_challenge_method: 'S256',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  authorization_details: JSON.stringify([await twinQuery(company, terms)]),
}
const pushed = await twice(
  () => oauth.pushedAuthorizationRequest(as, client, clientAuth, parameters, options),
  (response) => oauth.processPushedAuthorizationResponse(as, client, response),
)
const page = new URL(as.authorization_endpoint)
page.searchParams.set('client_id', company.id)
page.searchParams.set('request_uri', pushed.request_uri)
const landed = await browse(page)

const tampered = new URL(landed)
tampered.searchParams.set('iss', 'https://mallory.example')
const refusals = {}
try {
  oauth.validateAuthResponse(as, client, tampered, state)
} catch (error) {
  refusals.otherIssuer = error.name
}
const callback = oauth.validateAuthResponse(as, client, landed, state)
const tokens = await twice(
  () => oauth.authorizationCodeGrantRequest(as, client, clientAuth, callback, redirectUri, verifier, options),
  (response) => oauth.processAuthorizationCodeResponse(as, client, response),
)
const asked = await signedQuestion(company, issuer, tokens.grant_id, question)
const answer = await oauth.protectedResourceRequest(tokens.access_token, 'PUT', asked.url, asked.headers, question, options)
const bundle = await answer.text()
const about = { question: asked.question, consent: tokens.grant_id, requester: company.id }
const verified = verifyAnswer(bundle, trust, about)
const believed = liesThatPass(bundle, trust, about)
const refreshed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, clientAuth, tokens.refresh_token, options))
const introspected = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, clientAuth, refreshed.access_token, insecure))
const revoked = (await oauth.revocationRequest(as, client, clientAuth, refreshed.refresh_token, insecure)).status

const status = async (send, process) => {
  try {
    await process(await send())
    return 'accepted'
  } catch (error) {
    return error.error ?? error.name
  }
}
const push = (changed) => oauth.pushedAuthorizationRequest(as, client, clientAuth, changed, options)
const read = (response) => oauth.processPushedAuthorizationResponse(as, client, response)
const exchange = (given, pkce) => oauth.authorizationCodeGrantRequest(as, client, clientAuth, given, redirectUri, pkce, options)
const readTokens = (response) => oauth.processAuthorizationCodeResponse(as, client, response)
const withDetails = (changed) => twinQuery(company, terms).then((details) => JSON.stringify([{ ...details, ...changed }]))
refusals.twice = await status(() => push([...Object.entries(parameters), ['state', 'another']]), read)
refusals.noChallenge = await status(() => push(Object.entries(parameters).filter(([name]) => !name.startsWith('code_'))), read)
refusals.plainPkce = await status(() => push({ ...parameters, code_challenge_method: 'plain', code_challenge: verifier }), read)
refusals.badRedirect = await status(() => push({ ...parameters, redirect_uri: 'https://evil.example/cb' }), read)
const much = await withDetails({ quota: { n: 999999, per: 'P1M' } })
refusals.badDetails = await status(() => push({ ...parameters, authorization_details: much }), read)
refusals.otherClient = await status(() => oauth.pushedAuthorizationRequest(as, client, oauth.PrivateKeyJwt(company.question.privateKey), parameters, options), read)
refusals.noAuthentication = await status(() => oauth.pushedAuthorizationRequest(as, client, oauth.None(), parameters, options), read)
refusals.revokedRefresh = await status(
  () => oauth.refreshTokenGrantRequest(as, client, clientAuth, refreshed.refresh_token, options),
  (response) => oauth.processRefreshTokenResponse(as, client, response),
)
const direct = new URL(as.authorization_endpoint)
Object.entries({ ...parameters, client_id: company.id }).forEach(([name, value]) => direct.searchParams.set(name, value))
refusals.directAuthorize = (await fetch(direct, { redirect: 'manual' })).status
refusals.requestUriReplay = (await fetch(page, { redirect: 'manual' })).status

// Another owner's browser: refused there, and its other code is worth nothing with another verifier.
const again = async () => {
  const { request_uri } = await read(await push({ ...parameters, authorization_details: await withDetails({}) }))
  page.searchParams.set('request_uri', request_uri)
  return browse(page)
}
const deniedAt = await again()
try {
  oauth.validateAuthResponse(as, client, deniedAt, state)
} catch (error) {
  refusals.denied = error.error
}
const second = oauth.validateAuthResponse(as, client, await again(), state)
refusals.wrongVerifier = await status(() => exchange(second, oauth.generateRandomCodeVerifier()), readTokens)

// The library makes every proof; what it would send goes out altered.
const fresh = await oauth.processClientCredentialsResponse(as, client, await oauth.clientCredentialsGrantRequest(as, client, clientAuth, new URLSearchParams(), options))
const ask = async (changed, send = fetch) => {
  const next = await signedQuestion(company, issuer, tokens.grant_id, question)
  try {
    const how = { ...insecure, ...changed, [oauth.customFetch]: (url, init) => send(url, init, next.url) }
    return verdict(await oauth.protectedResourceRequest(fresh.access_token, 'PUT', next.url, next.headers, question, how))
  } catch (error) {
    return verdict(error.response)
  }
}
const verdict = (response) => /error="(\w+)"/.exec(response.headers.get('www-authenticate'))?.[1] ?? response.status
let kept
refusals.bearerReplay = await ask({})
const strange = oauth.DPoP(client, await newKey('ES256'))
refusals.withoutNonce = await ask({ DPoP: strange })
refusals.otherKey = await ask({ DPoP: strange })
refusals.honestProof = await ask({ DPoP }, (url, init) => { kept = [url, init]; return fetch(url, init) })
refusals.replayedProof = verdict(await fetch(...kept))
const elsewhere = await signedQuestion(company, issuer, tokens.grant_id, question)
refusals.wrongHtu = await ask({ DPoP }, (_, init) => {
  const headers = { ...init.headers, 'question-signature': elsewhere.headers.get('question-signature') }
  return fetch(elsewhere.url, { ...init, headers })
})
const twiceAsked = { ...options, additionalParameters: new URLSearchParams([['scope', 'twin:ask'], ['scope', 'twin:ask']]) }
refusals.twiceAtToken = await status(
  () => oauth.refreshTokenGrantRequest(as, client, clientAuth, 'x', twiceAsked),
  (response) => oauth.processRefreshTokenResponse(as, client, response),
)
refusals.codeReuse = await status(() => exchange(callback, verifier), readTokens)

const dead = await oauth.introspectionRequest(as, client, clientAuth, tokens.access_token, insecure)
say({
  resource, noncesLearned: pushed.asked_for_nonce === true, answerStatus: answer.status, verified, believed, tokens, introspected,
  revoked, afterRevocation: await oauth.processIntrospectionResponse(as, client, dead), refusals,
})
process.exit(0)
