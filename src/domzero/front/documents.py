"""Pages that never change while the server runs: made once, when somebody first asks, and kept in memory.

They are open to everybody, without a session, as XenServer serves its own documents (the guide's section 2.9): whoever
hands them over promises that they contain no secret. Browsers may keep them, and ask whether they are still the same.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from domzero.front.pages import NOT_MODIFIED
from domzero.front.routes import Headers, Request, Response, Routes
from domzero.wire.http import HttpError

INDEX = "index.html"
COMMON: Headers = (
    ("cache-control", "no-cache"),
    ("vary", "accept-encoding"),
    ("x-content-type-options", "nosniff"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
    ),
)

_REFUSED = re.compile(r"[qQ]=0(\.0*)?")


class Document(Protocol):
    """A file: its media type and its bytes."""

    @property
    def media_type(self) -> str: ...
    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    media_type: str
    plain: bytes
    zipped: bytes
    digest: str


class Documents:
    """Serves what `make` returns (name → document) below a prefix such as `/docs`.

    `make` runs in a thread. `apart` are documents that are made one by one, each when it is first asked for. When
    making fails, the request does, and the next one tries again.
    """

    def __init__(
        self,
        prefix: str,
        make: Callable[[], Mapping[str, Document]],
        apart: Mapping[str, Callable[[], Awaitable[Document]]] | None = None,
    ) -> None:
        self._prefix = prefix
        self._make = make
        self._making = asyncio.Lock()
        self._kept: Mapping[str, _Kept] | None = None
        self._apart = apart or {}
        self._making_apart = asyncio.Lock()
        self._kept_apart: dict[str, _Kept] = {}

    def add_to(self, routes: Routes) -> None:
        """Serve the documents under the prefix."""
        routes.page("GET", self._prefix, self._answer)

    async def _answer(self, request: Request) -> Response:
        path = request.head.path.removeprefix(self._prefix)
        if not path:
            return Response(302, headers=(("location", f"{self._prefix}/"),))
        name = path.removeprefix("/") or INDEX
        kept = await self._one(name) if name in self._apart else (await self._all()).get(name)
        if kept is None:
            raise HttpError(404, f"There is no document at {request.head.path}.")
        return _response(kept, request)

    async def _all(self) -> Mapping[str, _Kept]:
        async with self._making:
            if self._kept is None:
                self._kept = await asyncio.to_thread(
                    lambda: {name: _keep(made) for name, made in self._make().items()},
                )
            return self._kept

    async def _one(self, name: str) -> _Kept:
        async with self._making_apart:
            if name not in self._kept_apart:
                self._kept_apart[name] = await asyncio.to_thread(_keep, await self._apart[name]())
            return self._kept_apart[name]


def _keep(made: Document) -> _Kept:
    digest = hashlib.sha256(made.content).hexdigest()[:32]
    return _Kept(made.media_type, made.content, gzip.compress(made.content, mtime=0), digest)


def _response(kept: _Kept, request: Request) -> Response:
    zipped = _takes_gzip(request.head.header("accept-encoding") or "")
    tag = f'"{kept.digest}{"-gzip" if zipped else ""}"'
    headers: Headers = (*COMMON, ("etag", tag))
    if _has_already(request.head.header("if-none-match") or "", tag):
        return Response(NOT_MODIFIED, headers=headers)
    encoding: Headers = (("content-encoding", "gzip"),) if zipped else ()
    body = kept.zipped if zipped else kept.plain
    return Response(200, body, (*headers, ("content-type", kept.media_type), *encoding))


def _takes_gzip(accepted: str) -> bool:
    """Whether an `accept-encoding` names gzip, other than to refuse it (RFC 9110, section 12.5.3)."""
    for part in accepted.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return _REFUSED.fullmatch(weight.strip()) is None
    return False


def _has_already(known: str, tag: str) -> bool:
    """Whether an `if-none-match` covers a tag; the comparison is the weak one (RFC 9110, section 13.1.2)."""
    return any(part.strip().removeprefix("W/") in ("*", tag) for part in known.split(","))
