"""An ending that nobody may have signed, put into the log by force; in a service of its own, because others audit theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.client_kit import Service, company_terms, purchases
from tests.http_kit import running_service
from twinvault.company import Company
from twinvault.consent_receipts import verify_consent_receipt
from twinvault.keys import statement_of
from twinvault.owner import Owner
from vault.consent import versions
from vault.encoding import b64u
from vault.schema.consent import ConsentEvent, dump_consent
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey

SIGNER = SigningKey(bytes(range(32)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("forged")) as found:
        yield found


@pytest.mark.parametrize("event", [ConsentEvent.WITHDRAWN, ConsentEvent.REVOKED])
def test_an_ending_that_nobody_may_have_signed_has_no_receipt_even_if_it_is_logged(
    owner: Owner, company: Company, service: Service, event: ConsentEvent
) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(company.sign_request(company_terms(company, owner)))).version
    before, _ = owner.receipt(ConsentId(given.consent_id), 1)
    following = replace(given, version=2, consent_seq=2, prev=before.record, event=event)
    forged = sign_record(PayloadType.CONSENT, dump_consent(following), SIGNER)
    state = service.app.state
    with state.database.transaction() as session:
        pending = versions.record(session, following, versions.Submission(forged))
    state.sequencer.wait(pending.id, 10)
    shown = owner._api.get(f"{owner._path}/consents/{b64u(given.consent_id)}/versions/2/receipt", auth=owner._auth)
    signer = statement_of(owner._api, owner.profile, state.service.public_key)
    with pytest.raises(SealError):
        verify_consent_receipt({**shown, "signer": signer}, service.trust)
