"""HTTP heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.http import HttpError, could_be_request, error_page, parse_head, response_head


def head(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_a_head() -> None:
    parsed = parse_head(head("POST /RPC2?a=b%20c+d&a=&e HTTP/1.1", "Host: x", "X-Odd:  ä ", "Content-Length: 12"))
    assert (parsed.method, parsed.path, parsed.version, parsed.content_length) == ("POST", "/RPC2", "1.1", 12)
    assert parsed.arguments() == {"a": "", "e": ""}
    assert parsed.header("x-odd") == "ä"
    assert parsed.header("absent") is None
    assert parsed.keep_alive
    assert not parsed.chunked


@pytest.mark.parametrize(
    ("line", "path", "arguments"),
    [
        ("GET /export?ref=OpaqueRef:1&task_id=a%2Bb HTTP/1.0", "/export", {"ref": "OpaqueRef:1", "task_id": "a+b"}),
        ("CONNECT /console?uuid=u&x=a+b HTTP/1.0", "/console", {"uuid": "u", "x": "a b"}),
        ("GET https://host:443/rrd_updates?start=0 HTTP/1.1", "/rrd_updates", {"start": "0"}),
        ("GET http://host HTTP/1.1", "/", {}),
        ("GET /a%2fb%20c HTTP/1.1", "/a/b c", {}),
        ("OPTIONS * HTTP/1.1", "*", {}),
        ("CONNECT host:443 HTTP/1.1", "host:443", {}),
    ],
)
def test_targets(line: str, path: str, arguments: dict[str, str]) -> None:
    parsed = parse_head(head(line))
    assert (parsed.path, parsed.arguments()) == (path, arguments)


@pytest.mark.parametrize("separator", ["; ", ";", "&"])
def test_cookies_with_both_separators(separator: str) -> None:
    value = separator.join(["session_id=OpaqueRef%3a1", "pool_secret=a/b/c", "lonely", "empty="])
    parsed = parse_head(head("GET / HTTP/1.1", f"Cookie: {value}", "Cookie: second=2"))
    expected = {"session_id": "OpaqueRef:1", "pool_secret": "a/b/c", "empty": "", "second": "2"}
    assert parsed.cookies() == expected


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        (["GET / HTTP/1.1"], True),
        (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], True),
        (["GET / HTTP/1.1", "Connection: Close"], False),
        (["PUT /import HTTP/1.0"], False),
    ],
)
def test_keep_alive(lines: list[str], keep: bool) -> None:
    assert parse_head(head(*lines)).keep_alive is keep


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (head("GET / HTTP/3.0"), 400),
        (head("GET / RTSP/1.0"), 400),
        (head("GET /"), 400),
        (head("GET /a b HTTP/1.1"), 400),
        (head("GET / HTTP/1.1", "Bad Name: x"), 400),
        (head("GET / HTTP/1.1", "A: b", " folded"), 400),
        (head("GET / HTTP/1.1", "A: \x00"), 400),
        (head("GET / HTTP/1.1", "A: b\nB: c"), 400),
        (head("GET / HTTP/1.1", ": x"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (head("POST / HTTP/1.1", "Content-Length: -5"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 5, 5"), 400),
        (head("POST / HTTP/1.1", "Content-Length: " + "9" * 30), 400),
        (head("\x16\x03\x01 x HTTP/1.1"), 400),
        (head("BREW /pot HTTP/1.1"), 501),
    ],
)
def test_refused_heads(raw: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_head(raw)
    assert caught.value.status == status


def test_chunks_are_recognised() -> None:
    assert parse_head(head("POST / HTTP/1.1", "Transfer-Encoding: chunked")).chunked


@given(st.binary(max_size=200), st.booleans())
def test_garbage_raises_only_http_errors(raw: bytes, framed: bool) -> None:
    try:
        parse_head((b"GET / HTTP/1.1\r\n" if framed else b"") + raw + b"\r\n\r\n")
    except HttpError:
        return


@pytest.mark.parametrize("start", [b"", b"P", b"POST", b"POST / HTTP/1.1\r\nA", b"\r\n", b"\r\nGET /"])
def test_starts_of_requests(start: bytes) -> None:
    assert could_be_request(start)


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01", b"\x00", b"RFB@", b"<?xml", b"GET / HTTP/1.1\nHost: x\n\n", b"A" * 33]
)
def test_starts_of_rubbish(start: bytes) -> None:
    assert not could_be_request(start)


def test_response_heads() -> None:
    assert response_head(404, (("a", "b"),), length=3) == (
        b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncache-control: no-cache, no-store\r\na: b\r\n"
        b"content-length: 3\r\n\r\n"
    )
    assert b"connection: keep-alive" in response_head(200, length=0, keep_alive=True)
    assert b"content-length" not in response_head(200, length=None)


@pytest.mark.parametrize("header", [("location", "/x\r\nset-cookie: y"), ("a\nb", "c")])
def test_headers_cannot_be_smuggled_in(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="line break"):
        response_head(302, (header,), length=0)


def test_error_pages_escape_what_they_repeat() -> None:
    page = error_page(404, "<script>alert('x')</script>")
    assert b"<script>" not in page
    assert b"&lt;script&gt;" in page
    assert b"Additional information" in page
