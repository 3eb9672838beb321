"""What Prometheus's library writes for whatever clients say that they accept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.toolstack.rrd.exposition import expose
from domzero.toolstack.rrd.prometheus import Snapshot

EMPTY = Snapshot("1.0", "uuid", "name", {}, {}, (), 0, ())
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version="
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "begins"),
    [
        ("", PLAIN), ("*/*", PLAIN), ("application/json", PLAIN), (PROMETHEUS, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text; version=x", PLAIN), ("application/openmetrics-text; version=9999", PLAIN),
        ("text/plain; version=x", PLAIN), ("text/plain; version=1..0", PLAIN), ("text/plain; version=9.9.9", PLAIN),
        ("application/openmetrics-text;Version=1.0.0;version=x", PLAIN),
    ],
)  # fmt: skip
def test_what_is_promised_is_what_is_written(accept: str, begins: str) -> None:
    text, content_type = expose(EMPTY, accept)
    assert content_type.startswith(begins)
    assert "9" not in content_type
    assert text.endswith(b"# EOF\n") == content_type.startswith("application/openmetrics-text")


WORDS = st.sampled_from(
    ["application/openmetrics-text", "text/plain", "*/*", ";", ",", " ", "version", "=", "1.0.0", "0.0.4", "2", "x",
     "²", '"', "escaping", "values", "q=0.1"],
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.text(st.characters(codec="latin-1"), max_size=3)), max_size=12).map("".join))
def test_whatever_is_accepted(accept: str) -> None:
    assert expose(EMPTY, accept)[1].startswith((PLAIN, OPENMETRICS))
