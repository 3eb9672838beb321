"""What a host answers to the client's transfers, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.client.xe_transfer import TransferError, answer_of, place_of


def test_an_answer() -> None:
    assert answer_of(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nodd") == (302, {"location": "/x", "odd": ""})


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1", b"HTTP/1.1 ok", "HTTP/1.1 ²00".encode("latin-1"), b"x 1234 y"])
def test_answers_that_are_none(head: bytes) -> None:
    with pytest.raises(TransferError):
        answer_of(head)


@given(st.binary(max_size=80), st.booleans())
def test_rubbish_raises_nothing_else(head: bytes, framed: bool) -> None:
    try:
        status, _ = answer_of(b"HTTP/1.1 " + head if framed else head)
    except TransferError:
        return
    assert 0 <= status < 1000


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/import?x=y", (None, "/import?x=y")),
        ("https://other/import", (("other", 443, True), "/import")),
        ("http://[::1]:8080/a?b", (("::1", 8080, False), "/a?b")),
    ],
)
def test_places(path: str, place: object) -> None:
    assert place_of(path) == place


@pytest.mark.parametrize("path", ["ftp://x/", "https:///x", "http://[", "https://h:99999/", "http://h:x/"])
def test_places_that_are_none(path: str) -> None:
    with pytest.raises(TransferError):
        place_of(path)


@given(st.one_of(st.text(max_size=30), st.text(max_size=20).map("https://{}".format)))
def test_no_place_raises_anything_else(path: str) -> None:
    try:
        server, _ = place_of(path)
    except TransferError:
        return
    assert server is None or 0 < server[1] < 65536
