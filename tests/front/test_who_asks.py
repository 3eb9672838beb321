"""What a request says of who makes it, whatever stands there."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.front.access import name_and_password
from domzero.wire.http import HttpError, RequestHead, parse_head


def head(*lines: bytes, target: bytes = b"/") -> RequestHead:
    return parse_head(b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, b"", b""]))


def authorization(value: bytes) -> RequestHead:
    return head(b"Authorization: " + value)


@pytest.mark.parametrize("scheme", [b"Basic ", b"basic ", b"BASIC   "])
@pytest.mark.parametrize("said", [("root", "a:b"), ("", ""), ("é", "€")])
def test_names_and_passwords(scheme: bytes, said: tuple[str, str]) -> None:
    assert name_and_password(authorization(scheme + base64.b64encode(":".join(said).encode()))) == said


@pytest.mark.parametrize("value", [b"Bearer x", b"Negotiate \xff", b""])
def test_other_ways_are_none(value: bytes) -> None:
    assert name_and_password(authorization(value)) is None


@given(st.binary(max_size=30), st.booleans())
def test_whatever_is_sent_is_understood_or_refused(value: bytes, packed: bool) -> None:
    try:
        name_and_password(authorization(b"Basic " + (base64.b64encode(value) if packed else value)))
    except HttpError as error:
        told = error.status
    else:
        told = 200
    assert told in (200, 400)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_cookies_and_queries_are_texts(cookie: bytes, query: bytes) -> None:
    try:
        found = head(b"Cookie: " + cookie, target=b"/?" + query)
    except HttpError:
        return
    assert all(isinstance(text, str) for pair in (*found.cookies().items(), *found.argument_pairs()) for text in pair)
