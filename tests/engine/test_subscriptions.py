"""What a list of subscriptions means is remembered, within limits."""

from __future__ import annotations

from domzero.engine.subscriptions import LONGEST_KEPT, Filter


def test_short_lists_are_parsed_once() -> None:
    texts = ("crate", "parcel/OpaqueRef:1")
    assert Filter.parse(texts) is Filter.parse(texts)


def test_long_lists_are_not_kept() -> None:
    texts = tuple(f"crate/{number:0100}" for number in range(LONGEST_KEPT // 100 + 1))
    found = Filter.parse(texts)
    assert found is not Filter.parse(texts)
    assert (found, len(found.objects)) == (Filter.parse(texts), len(texts))
