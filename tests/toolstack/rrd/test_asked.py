"""What a client says of the answer that it wants, whatever stands there."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.exchange import Arguments, RequestError
from domzero.toolstack.rrd.pages import NUMBER_MOST, number_of, prefers_json


@dataclass
class Asker:
    """As much of a peer as is looked at."""

    accept: str | None

    def header(self, name: str) -> str | None:
        return self.accept if name == "accept" else None


WORDS = st.sampled_from(["application/json", "text/xml", "*/*", ",", ";", "q=", "0.5", "1e999", "nan", "-1", " ", "="])


@given(st.one_of(st.none(), st.text(max_size=20), st.lists(WORDS, max_size=12).map("".join)))
def test_whatever_is_accepted(accept: str | None) -> None:
    assert prefers_json(Asker(accept), Arguments({})) in (True, False)


@given(st.one_of(st.text(max_size=24), st.lists(st.sampled_from("0123456789.-+e ²٣"), max_size=30).map("".join)))
def test_whatever_number(text: str) -> None:
    try:
        found = number_of(Arguments({"start": text}), "start")
    except RequestError:
        return
    assert abs(found) <= NUMBER_MOST
