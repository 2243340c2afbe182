"""A visit's facts are bounded by public numbers, whatever a company sends within the question's own bounds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.imprint.funnel import SIZE, facts, without_page_value
from vault.schema.question import BadQuestion
from vault.schema.reader import Reader
from vault.schema.session import BOUNDS, UNKNOWN_VALUE, Session, Visitor, dump_session, parse_session

sessions = st.builds(
    Session,
    **{name: st.integers(low, high) for name, (low, high) in BOUNDS.items() if name != "weekend"},
    weekend=st.booleans(),
    visitor=st.sampled_from(Visitor),
)


@given(sessions)
def test_every_fact_lies_within_nought_and_one(session: Session) -> None:
    found = facts(session)
    assert found.shape == (SIZE,)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert found[-1] == (session.page_value_milli != UNKNOWN_VALUE)
    assert np.array_equal(without_page_value(found), facts(_unknown(session)))


@given(sessions)
def test_a_session_survives_its_record(session: Session) -> None:
    record = json.loads(json.dumps(dump_session(session)))
    assert parse_session(Reader(record, BadQuestion, "session")) == session


def test_what_is_out_of_bounds_missing_or_unknown_is_refused() -> None:
    whole = dump_session(Session())
    wrong = [whole | {name: value} for name, (low, high) in BOUNDS.items() for value in (low - 1, high + 1, "1")]
    wrong += [{field: value for field, value in whole.items() if field != name} for name in whole]
    wrong += [whole | {"more": 1}, whole | {"visitor": "robot"}, whole | {"visitor": 1}]
    for record in wrong:
        with pytest.raises(BadQuestion):
            parse_session(Reader(record, BadQuestion, "session"))


def _unknown(session: Session) -> Session:
    return parse_session(Reader(dump_session(session) | {"page_value_milli": UNKNOWN_VALUE}, BadQuestion, "session"))
