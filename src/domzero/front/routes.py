"""The table of HTTP handlers: method and path prefix → handler. The longest prefix counts.

Two kinds of handlers: a *page* is handed a whole (bounded) request and returns a `Response`, whose body may be a
stream; a *raw* handler takes over the connection right after the request's head: `CONNECT`, the xe protocol, imports,
WebSockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from domzero.engine.calls import Origin
from domzero.wire.http import HttpError, RequestHead, response_head

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a page sees it."""

    head: RequestHead
    origin: Origin
    body: bytes = b""


@dataclass(slots=True)
class Response:
    """What a page answers. A stream with no `length` ends with the connection; one with a length must keep to it."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: Headers = ()
    length: int | None = None


@dataclass(slots=True)
class RawStream:
    """A connection after a request's head. `reader` begins with the first byte behind the head.

    `receive` is for those who take large bodies, and do it with nothing else: it fills a buffer with what comes next,
    wholly or in part, and says how many bytes that are; none at the end.

    Nothing has been answered yet: the handler writes whatever its protocol wants; `respond` is for those that want
    HTTP. The connection is closed when the handler returns or raises.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    receive: Callable[[memoryview], Awaitable[int]]

    def respond(self, status: int = 200, headers: Headers = (), length: int | None = None) -> None:
        """Write a response's head."""
        self.writer.write(response_head(status, headers, length=length))


PageHandler = Callable[[Request], Awaitable[Response]]
RawHandler = Callable[[Request, RawStream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: exactly one of `page` and `raw` is set. What is `alone` has nothing below it."""

    method: str
    prefix: str
    page: PageHandler | None = None
    raw: RawHandler | None = None
    alone: bool = False

    def covers(self, path: str) -> bool:
        """Whether a request for that path is for this row."""
        return path == self.prefix if self.alone else _covers(self.prefix, path)


@dataclass(slots=True)
class Routes:
    """All handlers. Rows may be added while the server runs; connections that are open take notice too."""

    rows: dict[str, list[Route]] = field(default_factory=dict)
    rpc_methods: frozenset[str] = frozenset({"POST", "OPTIONS"})

    def page(self, method: str, prefix: str, handler: PageHandler, *, alone: bool = False) -> None:
        """Serve a page, and what is below it unless it is `alone`. A page for GET serves HEAD too.

        Raises `ValueError` when the row exists.
        """
        self._add(Route(method, prefix, page=handler, alone=alone))

    def raw(self, method: str, prefix: str, handler: RawHandler) -> None:
        """Hand connections over. Raises `ValueError` when the row exists."""
        self._add(Route(method, prefix, raw=handler))

    def find(self, method: str, path: str) -> Route:
        """The handler of a request. Raises `HttpError` 501, 405 or 404."""
        rows = self.rows.get("GET" if method == "HEAD" else method, [])
        for route in rows:
            if route.covers(path) and (route.page is not None or method != "HEAD"):
                return route
        if not rows and method not in ("GET", "HEAD", *self.rpc_methods):
            raise HttpError(501, f"No page takes the method {method}.")
        others = sorted(name for name, routes in self.rows.items() if any(row.covers(path) for row in routes))
        if others:
            raise HttpError(405, f"{path} does not take the method {method}.", (("allow", ", ".join(others)),))
        raise HttpError(404, f"There is nothing at {path}.")

    def has(self, method: str, path: str) -> bool:
        """Whether a method is served at a path."""
        return any(route.covers(path) for route in self.rows.get(method, []))

    def _add(self, route: Route) -> None:
        rows = self.rows.setdefault(route.method, [])
        if any(row.prefix == route.prefix for row in rows):
            raise ValueError(f"{route.method} {route.prefix} has a handler already")
        rows.append(route)
        rows.sort(key=lambda row: len(row.prefix), reverse=True)


def _covers(prefix: str, path: str) -> bool:
    """Whether a path is the prefix or lies below it; `/import` does not cover `/import_metadata`."""
    return path == prefix or (path.startswith(prefix) and (prefix.endswith("/") or path[len(prefix)] == "/"))
