"""HTTP/1.x heads, without I/O: request heads in, response heads out.

Only heads are handled here. The caller finds the end of a head (`HEAD_END`), and takes `content_length` bytes of body,
or the whole rest of the connection for the requests of XenServer's clients that name no length (`CONNECT`,
`POST /cli`, an HTTP/1.0 `PUT`). Feeding the parser nothing but the head is what makes those work: llhttp refuses bytes
after the head of a request that closes the connection.

Request bodies in chunks are recognised (`chunked`) so that they can be refused; no XenAPI client needs them.
Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, unquote_plus

import httptools

HEAD_END = b"\r\n\r\n"
TARGET_SHOWN = 200
"""How many characters of a bad request line an error page repeats."""

REASONS = {
    200: "OK", 302: "Found", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required",
    413: "Content Too Large", 426: "Upgrade Required", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(1\.[01])\r\n")
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_METHOD_START = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}(?: |\Z)")


class HttpError(Exception):
    """A request that is answered with an HTTP error; `status` is one of `REASONS`, the text is for a person."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {REASONS[status]}: {text}")
        self.status = status
        self.text = text
        self.headers = headers


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request. Header names are lower case; values are stripped Latin-1 text.

    `path` is percent-decoded and without scheme, host and query. `content_length` is `None` where none was given.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    keep_alive: bool
    content_length: int | None
    chunked: bool
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        local = self.target if self.method == "CONNECT" else _ABSOLUTE.sub("", self.target, count=1)
        path, _, query = local.partition("?")
        object.__setattr__(self, "path", unquote(path) or "/")
        object.__setattr__(self, "query", query)

    def header(self, name: str) -> str | None:
        """The first header of a (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def arguments(self) -> dict[str, str]:
        """The query's parameters, decoded, `+` as a blank; the last of a name counts."""
        return dict(self.argument_pairs())

    def argument_pairs(self) -> list[tuple[str, str]]:
        """The same in the query's order, also those whose name comes again."""
        return parse_qsl(self.query, keep_blank_values=True)

    def cookies(self) -> dict[str, str]:
        """All cookies, decoded. XenServer's clients separate them by `;` or by `&`."""
        pairs = (
            pair.partition("=")
            for key, value in self.headers
            if key == "cookie"
            for pair in re.split("[;&]", value)
            if "=" in pair
        )
        return {name.strip(): unquote_plus(value.strip()) for name, _, value in pairs}


class _Collector:
    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))


def parse_head(raw: bytes) -> RequestHead:
    """Parse a whole head, up to and with the blank line.

    Raises `HttpError` 400 for anything that is not HTTP/1.x, 501 for a method that does not exist.
    """
    line = _REQUEST_LINE.match(raw)
    if line is None:
        shown = raw.split(b"\r\n", 1)[0][:TARGET_SHOWN].decode("latin-1")
        raise HttpError(400, f"This is no HTTP/1.x request: {shown}")
    method, target, version = (part.decode("latin-1") for part in line.groups())
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # raised at the end of the head of a CONNECT or Upgrade request: the head itself is whole
    except httptools.HttpParserInvalidMethodError:
        raise HttpError(501, f"The method {method} is not supported.") from None
    except httptools.HttpParserError as error:
        raise HttpError(400, f"The head of the request is malformed: {error}") from None
    headers = tuple(collector.headers)
    length = next((value for key, value in headers if key == "content-length"), None)
    encoding = next((value for key, value in headers if key == "transfer-encoding"), None)
    return RequestHead(
        method=method,
        target=target,
        version=version,
        headers=headers,
        keep_alive=_keeps_alive(version, headers),
        content_length=None if length is None else int(length),
        chunked=encoding is not None,
    )


def _keeps_alive(version: str, headers: tuple[tuple[str, str], ...]) -> bool:
    """RFC 9112, section 9.3. (llhttp forgets the flag when a message without a body is complete.)"""
    options = {option.strip().lower() for name, value in headers if name == "connection" for option in value.split(",")}
    return "keep-alive" in options if version == "1.0" else "close" not in options


def could_be_request(start: bytes | bytearray) -> bool:
    """Whether an unfinished head may still become one; false for TLS or other rubbish on the wrong port."""
    return _METHOD_START.match(start) is not None and b"\n\n" not in start


def response_head(
    status: int, headers: Collection[tuple[str, str]] = (), *, length: int | None, keep_alive: bool = False
) -> bytes:
    """The head of a response. Without a length the body ends with the connection, except where a status has no body.

    Nobody may keep the answer unless the headers say so by a `cache-control` of their own.
    Raises `ValueError` for a header that contains a line break.
    """
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    if all(name.lower() != "cache-control" for name, _ in headers):
        lines.append("cache-control: no-cache, no-store")
    for name, value in headers:
        if "\r" in value or "\n" in value or "\r" in name or "\n" in name:
            raise ValueError(f"the header {name!r} contains a line break")
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def error_page(status: int, text: str) -> bytes:
    """A small HTML page; the text is escaped."""
    title = f"{status} {REASONS[status]}"
    return (
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1>"
        f"<h2>Additional information</h2><p>{html.escape(text)}</p></body></html>\n"
    ).encode("utf-8", "replace")
