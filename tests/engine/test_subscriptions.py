"""What a list of subscriptions means is remembered, within limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.errors import ApiError
from domzero.engine.subscriptions import LONGEST_KEPT, Filter


def test_short_lists_are_parsed_once() -> None:
    texts = ("crate", "parcel/OpaqueRef:1")
    assert Filter.parse(texts) is Filter.parse(texts)


def test_long_lists_are_not_kept() -> None:
    texts = tuple(f"crate/{number:0100}" for number in range(LONGEST_KEPT // 100 + 1))
    found = Filter.parse(texts)
    assert found is not Filter.parse(texts)
    assert (found, len(found.objects)) == (Filter.parse(texts), len(texts))


@given(
    st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(["*", "vm", "VM/", "/x", "vm/OpaqueRef:1", "*/x"])), max_size=5
    )
)
def test_whatever_is_asked_for(texts: list[str]) -> None:
    try:
        found = Filter.parse(tuple(texts))
    except ApiError as error:
        told = error.description
    else:
        told = ()
        assert all(found.matches(text.partition("/")[0].lower(), text.partition("/")[2]) for text in texts)
    assert told == () or told[0] == "EVENT_SUBSCRIPTION_PARSE_FAILURE"
