"""The contract for compressing and decompressing what goes over the network, with all of the host's processors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

Send = Callable[[bytes | bytearray | memoryview], Awaitable[None]]
"""Takes the next piece. What it was given may be changed when it has returned."""
Receive = Callable[[], Awaitable[bytes | memoryview]]
"""Gives the next piece, of a few MiB at most, which lasts until one is asked for again; nothing at the end."""

KINDS = frozenset({"none", "gzip", "zstd"})


class CompressionError(Exception):
    """This host cannot do it, or its program failed; nothing is said against the data. The text says why."""


class Compression(Protocol):
    """Memory is bounded whatever is sent and received: some blocks of 1 MiB for each processor."""

    def compressing(self, kind: str, send: Send) -> AbstractAsyncContextManager[Send]:
        """Where to send what is to reach `send` compressed. `kind` is one of `KINDS`.

        What is left is sent when the block ends in peace; when it ends otherwise, nothing more is. Raises
        `CompressionError`, and what `send` raises.
        """
        ...

    def decompressing(self, receive: Receive) -> AbstractAsyncContextManager[Receive]:
        """Where to receive what comes from `receive`, decompressed; its first bytes tell how, and whether at all.

        Some pieces are received ahead. Raises `XvaError` for data that are damaged (`IMPORT_ERROR`) or end too early
        (`IMPORT_ERROR_PREMATURE_EOF`), `CompressionError`, and what `receive` raises.
        """
        ...
