"""Requests that are no calls: up- and downloads and other pages, as the functions that carry them out see them.

A function takes a `Context` first, then the `Peer` and the query's `Arguments`, and is a coroutine function. Functions
that need more get it bound in front, as with `binding.implements`:

    @serves("PUT", "/import", role="vm-admin", label="VM.import", result=Set(REF))
    async def import_machines(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> tuple[Ref, ...]: ...

What it returns becomes the result of the request's task, an `ApiError` that it raises the task's failure.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, Protocol, TypeVar

from domzero.idl.types import VOID, Type

Headers = tuple[tuple[str, str], ...]
Function = TypeVar("Function", bound=Callable[..., Any])

_ROWS = "serves"


class RequestError(Exception):
    """The request itself is wrong: the answer is an HTTP error with a text for a person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class PeerGoneError(ConnectionError):
    """The other side went away, or did nothing for too long, before everything was said."""


class Arguments(Mapping[str, str]):
    """The query's parameters and the cookies (the query counts where both have a name)."""

    def __init__(self, values: Mapping[str, str], pairs: Iterable[tuple[str, str]] | None = None) -> None:
        self._values = dict(values)
        self._pairs = tuple(self._values.items() if pairs is None else pairs)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def need(self, *names: str) -> str:
        """The value of the first of the names that is there and not empty. Raises `RequestError` 400."""
        for name in names:
            if value := self._values.get(name):
                return value
        raise RequestError(400, f"The query lacks {' or '.join(names)}.")

    def every(self, name: str) -> tuple[str, ...]:
        """All values of a name that the query may give more than once, in its order."""
        return tuple(value for key, value in self._pairs if key == name)

    @property
    def query(self) -> dict[str, str]:
        """What the query alone said: a browser sends the cookies of other servers of this machine along."""
        return dict(self._pairs)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value: `true` or `1`, `false` or `0`. Raises `RequestError` 400 for anything else."""
        value = self._values.get(name)
        if not value:
            return default
        if value.lower() in ("true", "1"):
            return True
        if value.lower() in ("false", "0"):
            return False
        raise RequestError(400, f"{name} is neither true nor false.")


class Peer(Protocol):
    """The other end of one request, whose head was read. Every method that waits raises `PeerGoneError`."""

    length: int | None
    """Bytes of the request's body by its Content-Length; None where the body ends with the connection, or not told."""
    chunked: bool
    """Whether the body came with a Transfer-Encoding, which `read` does not decode."""

    def header(self, name: str) -> str | None:
        """A header of the request, by its lower-case name."""
        ...

    def begin(self, status: int = 200, headers: Headers = (), length: int | None = None) -> None:
        """Send the head of the answer, once; without a length the answer ends with the connection."""
        ...

    async def read(self, limit: int = 1 << 20) -> bytes:
        """Some of the request's body: at least a byte and at most `limit`; nothing at its end.

        The end is where Content-Length says (`PeerGoneError` if the peer stops before); without one, where the peer
        stops.
        """
        ...

    async def read_into(self, buffer: memoryview) -> int:
        """As `read`, into memory of the caller's; how many bytes that are."""
        ...

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes of the body. Raises `PeerGoneError` when it ends before."""
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece of the answer (`begin` came first), and wait while the peer reads more slowly than we write."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """One row: who may ask (a role's name) for what, and what the request's task is called.

    Without `task` nothing is stored for a request that names no task: for pages that are asked for all the time.
    `public`, where there is one, is asked of the arguments of a request that does not say who makes it; only if it
    says yes is such a request served, with a context without a session, and never under a task that it names.
    """

    method: str
    path: str
    role: str
    label: str
    result: Type = VOID
    task: bool = True
    public: Callable[..., bool] | None = None


PageFunction = Callable[..., Awaitable[Any]]


def serves(
    method: str, path: str, *, role: str, label: str, result: Type = VOID, task: bool = True,
    public: Callable[..., bool] | None = None,
) -> Callable[[Function], Function]:  # fmt: skip
    """Mark a function as what answers a method at a path. Nothing is registered; `collect_pages` finds the mark."""
    row = Page(method, path, role, label, result, task, public)

    def mark(function: Function) -> Function:
        setattr(function, _ROWS, (*getattr(function, _ROWS, ()), row))
        return function

    return mark


def collect_pages(module: ModuleType, *bound: object) -> list[tuple[Page, PageFunction]]:
    """Every function of the module that is marked, with its row and with the given values bound in front of both."""
    return [
        (replace(row, public=row.public and partial(row.public, *bound)), partial(function, *bound))
        for function in vars(module).values()
        if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__
        for row in getattr(function, _ROWS, ())
    ]
