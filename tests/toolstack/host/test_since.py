"""From when on the audit is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.exchange import RequestError
from domzero.toolstack.host.audit_log import beginning


@pytest.mark.parametrize(
    ("text", "moment"),
    [("", ""), ("2026-01-31", "20260131T00:00:00Z"), ("2026-01-31T12:00:00+01:00", "20260131T11:00:00Z"),
     ("0301-01-01", ""), ("0001-01-01T00:00:00+14:00", "")],
)  # fmt: skip
def test_moments(text: str, moment: str) -> None:
    assert beginning(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "9999-12-31T23:59:59-14:00", "2026-13-01"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(RequestError):
        beginning(text)


PARTS = st.sampled_from(
    ["0001", "1969", "2026", "9999", "-", "12", "31", "T", ":", "00", "59", "Z", "+", "14", ".5", "W"]
)


@given(st.one_of(st.text(max_size=20), st.lists(PARTS, max_size=14).map("".join)))
def test_whatever_is_asked(text: str) -> None:
    try:
        found = beginning(text)
    except RequestError:
        return
    assert found == "" or (len(found) == 18 and found >= "19691231T00:00:00Z")
