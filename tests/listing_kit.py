"""A sampled audit in tests: an engagement over all that was logged so far, its listing, its bundles, and the comparison."""

from __future__ import annotations

from datetime import timedelta

import httpx

from tests.answer_kit import ISSUER
from tests.audit_kit import Audited
from tests.consent_kit import NOW
from vault.clock import unix_s
from vault.evidence.auditors import AuditScope, register_auditor
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle
from vault.proof.established import Carried
from vault.proof.listing import Listing, Row, parse_listing
from vault.proof.report import Report
from vault.proof.sampled import Tally, verify_listing
from vault.proof.verify import verify_bundle
from vault.seal.audit import ListingRequest, sign_listing_request
from vault.seal.ids import new_id
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.models import log_entry

AT_S = unix_s(NOW - timedelta(days=1))
"""When everything logged so far was recorded, as the tests set it."""


def engaged(site: Audited, opens: int | None = 1, key: SigningKey | None = None) -> SigningKey:
    """Let all that was logged so far be the time of a new engagement, which is over."""
    size, key = site.settle(), key or SigningKey(new_seed())
    with site.service.database.transaction() as session:
        recorded = log_entry.update().where(log_entry.c.leaf_index < size, log_entry.c.recorded_s > AT_S)
        session.connection().execute(recorded.values(recorded_s=AT_S))
        register_auditor(
            session, "Chooser", key.public_key, NOW + timedelta(days=9), AuditScope(AT_S, AT_S + 1), opens=opens
        )
    return key


def ask(site: Audited, key: SigningKey, *chosen: bytes) -> httpx.Response:
    request = ListingRequest(ISSUER, new_id() * 2, unix_s(NOW), chosen)
    return site.service.client.post("/v1/audit/listing", content=sign_listing_request(request, key).encoded)


def listed(site: Audited, key: SigningKey, *chosen: bytes) -> Listing:
    response = ask(site, key, *chosen)
    assert response.status_code == 200, response.text
    return parse_listing(response.content)


def bundle_of(site: Audited, key: SigningKey, listing: Listing) -> Bundle:
    response = site.send(site.request(listing.first, listing.end - 1, key))
    assert response.status_code == 200, response.text
    return parse_bundle(response.content)


def compared(site: Audited, listing: Listing, *parts: Bundle) -> Report:
    """Verify the parts of a sampled audit, and then its listing, under the pinned keys."""
    carried = Carried(tally=Tally(listing))
    for part in parts:
        report = verify_bundle(parse_bundle(dump_bundle(part)), site.service.trust, carried)
        assert report.failures == ()
    assert carried.tally is not None
    return verify_listing(carried.tally, (carried.complete_from, carried.complete_to))


def busiest(listing: Listing) -> Row:
    """Return the row of the consent that `Audited.live` gave a company."""
    return max(listing.rows, key=lambda row: sum(row.counts.values()))


def row_of(listing: Listing, row: Row) -> Row:
    return next(known for known in listing.rows if known.consent == row.consent)
