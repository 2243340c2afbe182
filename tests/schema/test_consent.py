"""The consent record: strict reading, never wider than asked, versions that only follow."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_json
from vault.schema.category import CATEGORIES, Category, Purpose
from vault.schema.consent import (
    ConsentEvent,
    ConsentRequest,
    ConsentVersion,
    Notice,
    dump_consent,
    dump_consent_request,
    parse_consent,
    parse_consent_request,
    verify_grant,
    verify_successor,
)
from vault.schema.question import QuestionKind
from vault.schema.terms import BadConsent, ConsentKind, Handling, Terms, narrower_or_equal
from vault.schema.trace import Period

PURPOSE = Purpose("dpv:ProvideProductRecommendations")
OTHER_PURPOSE = Purpose("dpv:ServicePersonalisation")
TERMS = Terms(
    kind=ConsentKind.COMPANY,
    grantee="acme",
    purposes=frozenset({PURPOSE, OTHER_PURPOSE}),
    questions=frozenset({QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND}),
    necessary=frozenset({Category("pd:Purchase")}),
    optional=frozenset({Category("pd:Health"), Category("pd:Location")}),
    data_from=Period("2026-01"),
    data_to=Period("2026-12"),
    not_before=1_000,
    not_after=2_000,
    quota_per_month=100,
    explicit_special=frozenset({Category("pd:Health")}),
    influence_opt_in=True,
    agent_allowed=True,
    post_mortem=frozenset({PURPOSE}),
    handling=Handling(
        "Acme, privacy@acme.example", "EU", ("Dublin",), "P30D", "https://a.example", "https://b.example"
    ),
)
FIRST = ConsentVersion(
    consent_id=b"c" * 16,
    version=1,
    consent_seq=1,
    prev=b"",
    event=ConsentEvent.GIVEN,
    event_time=1_000,
    principal_key=b"k" * 32,
    terms=TERMS,
    notice=Notice(b"n" * 32, "en-GB"),
    request_sha256=b"r" * 32,
)
FIRST_SHA256 = hashlib.sha256(b"envelope").digest()

NARROWINGS: list[Terms] = [
    replace(TERMS, purposes=frozenset({PURPOSE})),
    replace(TERMS, questions=frozenset({QuestionKind.RECOMMEND})),
    replace(TERMS, necessary=frozenset()),
    replace(TERMS, optional=frozenset()),
    replace(TERMS, data_from=Period("2026-02")),
    replace(TERMS, data_to=Period("2026-11")),
    replace(TERMS, not_before=1_001),
    replace(TERMS, not_after=1_999),
    replace(TERMS, quota_per_month=99),
    replace(TERMS, explicit_special=frozenset()),
    replace(TERMS, influence_opt_in=False),
    replace(TERMS, agent_allowed=False),
    replace(TERMS, post_mortem=frozenset()),
]


def following(event: ConsentEvent, **changes: object) -> ConsentVersion:
    fields: dict[str, object] = {"version": 2, "consent_seq": 2, "prev": FIRST_SHA256, "event": event} | changes
    return replace(FIRST, **fields)  # type: ignore[arg-type]  # one table of changed fields serves every case


def test_a_version_survives_its_bytes_unchanged() -> None:
    assert parse_consent(parse_json(dump_json(dump_consent(FIRST)))) == FIRST


def test_a_request_survives_its_bytes_unchanged() -> None:
    request = ConsentRequest(b"q" * 16, TERMS, 999)
    assert parse_consent_request(parse_json(dump_json(dump_consent_request(request)))) == request


def test_subject_is_the_digest_of_the_pairwise_key() -> None:
    record = dump_consent(FIRST)
    assert record["pii_principal_id"] == b64u(hashlib.sha256(b"k" * 32).digest()[:16])
    record["pii_principal_id"] = b64u(b"s" * 16)
    with pytest.raises(BadConsent):
        parse_consent(record)


def paths(value: JsonValue, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a record where one value stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths(item, (*path, key)))]


def at(record: JsonObject, path: tuple[str | int, ...]) -> Any:
    value: Any = record
    for key in path:
        value = value[key]
    return value


PATHS = [path for path in paths(dump_consent(FIRST)) if path]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("junk", [-1, 2**60, "", "\x00", "zz", [], [[]], {}, True, None, "A" * 400])
def test_any_field_with_junk_is_refused_with_the_one_error(path: tuple[str | int, ...], junk: object) -> None:
    record = copy.deepcopy(dump_consent(FIRST))
    at(record, path[:-1])[path[-1]] = junk
    try:
        parsed = parse_consent(record)
    except BadConsent:
        return
    # What is still read must have kept the junk as a value of its own, never silently dropped it.
    assert dump_json(dump_consent(parsed)) == dump_json(record)


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(path[-1], str)])
def test_any_missing_field_is_refused(path: tuple[str | int, ...]) -> None:
    record = copy.deepcopy(dump_consent(FIRST))
    del at(record, path[:-1])[path[-1]]
    with pytest.raises(BadConsent):
        parse_consent(record)


@pytest.mark.parametrize("path", [path for path in [(), *PATHS] if isinstance(at(dump_consent(FIRST), path), dict)])
def test_any_unknown_field_is_refused(path: tuple[str | int, ...]) -> None:
    record = copy.deepcopy(dump_consent(FIRST))
    at(record, path)["unknown"] = 1
    with pytest.raises(BadConsent):
        parse_consent(record)


json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(sorted(dump_consent(FIRST))))
def test_arbitrary_json_never_escapes_the_one_error(value: JsonValue, name: str) -> None:
    for record in (value, dump_consent(FIRST) | {name: value}):
        for parse in (parse_consent, parse_consent_request):
            try:
                parse(record)  # type: ignore[arg-type]  # whatever it is, one error
            except BadConsent:
                continue


@pytest.mark.parametrize("name", ["purposes", "questions", "explicit_special", "post_mortem", "pii_information"])
def test_sets_have_one_spelling(name: str) -> None:
    record = copy.deepcopy(dump_consent(FIRST))
    terms = record["terms"]
    assert isinstance(terms, dict)
    items = terms[name]
    assert isinstance(items, list)
    terms[name] = [*items, items[-1]]
    with pytest.raises(BadConsent):
        parse_consent(record)
    terms[name] = items[::-1]
    if len(items) > 1:
        with pytest.raises(BadConsent):
            parse_consent(record)


def test_an_explicit_opt_in_names_a_special_category() -> None:
    record = copy.deepcopy(dump_consent(FIRST))
    assert not CATEGORIES["pd:Purchase"].special
    at(record, ("terms",))["explicit_special"] = ["pd:Purchase"]
    with pytest.raises(BadConsent):
        parse_consent(record)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: replace(t, grantee="owner"),
        lambda t: replace(t, kind=ConsentKind.SELF),
        lambda t: replace(t, kind=ConsentKind.COHORT, grantee="operator"),
        lambda t: replace(t, purposes=frozenset()),
        lambda t: replace(t, necessary=frozenset(), optional=frozenset()),
        lambda t: replace(t, optional=t.optional | t.necessary),
        lambda t: replace(t, questions=frozenset()),
        lambda t: replace(t, quota_per_month=0),
        lambda t: replace(t, data_to=Period("2025-12")),
        lambda t: replace(t, not_after=t.not_before),
        lambda t: replace(t, post_mortem=frozenset({Purpose("dpv:Marketing")})),
    ],
)
def test_contradicting_terms_are_refused(change: Callable[[Terms], Terms]) -> None:
    with pytest.raises(BadConsent):
        change(TERMS)


@pytest.mark.parametrize("narrower", NARROWINGS)
def test_narrower_is_allowed_and_wider_is_not(narrower: Terms) -> None:
    assert narrower_or_equal(narrower, TERMS)
    assert not narrower_or_equal(TERMS, narrower)
    request = ConsentRequest(b"q" * 16, narrower, 999)
    with pytest.raises(BadConsent, match="more than was asked"):
        verify_grant(FIRST, request, b"r" * 32)


def test_every_field_of_the_terms_is_compared() -> None:
    changed = {name for terms in NARROWINGS for name in terms.__slots__ if getattr(terms, name) != getattr(TERMS, name)}
    assert changed == set(TERMS.__slots__) - {"kind", "grantee", "handling"}
    assert not narrower_or_equal(TERMS, replace(TERMS, grantee="other"))
    assert not narrower_or_equal(TERMS, replace(TERMS, handling=replace(TERMS.handling, retention_period="P1D")))


def test_a_grant_names_the_request_it_answers() -> None:
    request = ConsentRequest(b"q" * 16, TERMS, 999)
    assert verify_grant(FIRST, request, b"r" * 32) is FIRST
    with pytest.raises(BadConsent, match="another request"):
        verify_grant(FIRST, request, b"x" * 32)
    with pytest.raises(BadConsent, match="answers a request"):
        replace(FIRST, request_sha256=b"")


@pytest.mark.parametrize(
    "event",
    [ConsentEvent.NARROWED, ConsentEvent.RENEWED, ConsentEvent.WITHDRAWN, ConsentEvent.REVOKED, ConsentEvent.RETURNED],
)
def test_a_live_consent_may_be_followed(event: ConsentEvent) -> None:
    version = following(event)
    assert verify_successor(version, FIRST, FIRST_SHA256) is version


@pytest.mark.parametrize(
    "over", [ConsentEvent.WITHDRAWN, ConsentEvent.REVOKED, ConsentEvent.RETURNED, ConsentEvent.INVALIDATED]
)
@pytest.mark.parametrize("event", sorted(set(ConsentEvent) - {ConsentEvent.GIVEN}))
def test_what_is_over_has_no_successor(over: ConsentEvent, event: ConsentEvent) -> None:
    third = following(event, version=3, consent_seq=3, prev=b"2" * 32, event_time=9_999)
    with pytest.raises(BadConsent, match="no further version"):
        verify_successor(third, following(over), b"2" * 32)


def test_an_expired_consent_may_be_renewed_but_not_narrowed() -> None:
    expired = following(ConsentEvent.EXPIRED, event_time=2_000)
    verify_successor(expired, FIRST, FIRST_SHA256)
    with pytest.raises(BadConsent, match="window"):
        verify_successor(replace(expired, event_time=1_999), FIRST, FIRST_SHA256)
    third = replace(expired, version=3, consent_seq=3, prev=b"2" * 32, event=ConsentEvent.RENEWED)
    verify_successor(third, expired, b"2" * 32)
    with pytest.raises(BadConsent, match="live consent"):
        verify_successor(replace(third, event=ConsentEvent.NARROWED), expired, b"2" * 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"prev": b"x" * 32},
        {"consent_seq": 1},
        {"event_time": 999},
        {"consent_id": b"d" * 16},
        {"principal_key": b"l" * 32},
        {"terms": replace(TERMS, grantee="other")},
        {"terms": replace(TERMS, quota_per_month=101)},
        {"request_sha256": b"x" * 32},
        {"terms": replace(TERMS, optional=TERMS.optional | {Category("pd:Mood")})},
    ],
)
def test_a_version_that_does_not_follow_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadConsent):
        verify_successor(following(ConsentEvent.NARROWED, **changes), FIRST, FIRST_SHA256)


@pytest.mark.parametrize("terms", NARROWINGS)
def test_ending_a_consent_changes_no_term(terms: Terms) -> None:
    with pytest.raises(BadConsent, match="keeps its terms"):
        verify_successor(following(ConsentEvent.WITHDRAWN, terms=terms), FIRST, FIRST_SHA256)


def test_only_the_first_version_is_given() -> None:
    with pytest.raises(BadConsent):
        following(ConsentEvent.GIVEN)
    with pytest.raises(BadConsent):
        replace(FIRST, event=ConsentEvent.RENEWED)
    with pytest.raises(BadConsent):
        replace(FIRST, prev=b"p" * 32)


def test_events_that_others_cause_are_not_written_as_the_persons() -> None:
    withdrawn, revoked = (dump_consent(following(e)) for e in (ConsentEvent.WITHDRAWN, ConsentEvent.REVOKED))
    assert withdrawn["event_state"] == "dpv:ConsentWithdrawn"
    assert withdrawn["entity_id"] == b64u(FIRST.subject)
    assert revoked["event_state"] == "dpv:ConsentRevoked"
    assert revoked["entity_id"] == "operator"
    with pytest.raises(BadConsent):
        parse_consent(revoked | {"entity_id": b64u(FIRST.subject)})
    with pytest.raises(BadConsent):
        parse_consent(revoked | {"event_state": "dpv:ConsentWithdrawn"})


def test_what_a_company_gives_back_ends_under_its_name() -> None:
    returned = dump_consent(following(ConsentEvent.RETURNED))
    assert returned["event_state"] == "dpv:ConsentRevoked"
    assert returned["entity_id"] == TERMS.grantee
    for other in ("operator", b64u(FIRST.subject)):
        with pytest.raises(BadConsent):
            parse_consent(returned | {"entity_id": other})
    own = replace(TERMS, kind=ConsentKind.SELF, grantee="owner")
    with pytest.raises(BadConsent, match="Only a company"):
        following(ConsentEvent.RETURNED, terms=own, request_sha256=b"")


def test_every_event_has_its_own_state_or_its_own_cause() -> None:
    told = [(dump_consent(following(event))["event_state"], dump_consent(following(event))["entity_id"])
            for event in ConsentEvent if event not in {ConsentEvent.GIVEN, ConsentEvent.NARROWED}]  # fmt: skip
    assert len(set(told)) == len(told)
