"""Compression with all processors: see `protocol` for the contract."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from domzero.host.compression import gzip, zstd
from domzero.host.compression.protocol import Receive, Send
from domzero.wire.xva.inflate import SNIFFED, sniff

MOST_WORKERS = 12
"""However many processors there are: each holds blocks."""


class HostCompression:
    """The real one."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = min(workers or len(os.sched_getaffinity(0)), MOST_WORKERS)

    def compressing(self, kind: str, send: Send) -> AbstractAsyncContextManager[Send]:
        """See `Compression`."""
        match kind:
            case "gzip":
                return gzip.compressing(send, self._workers)
            case "zstd":
                return zstd.compressing(send, self._workers)
            case "none":
                return _unchanged(send)
        raise ValueError(f"there is no compression {kind}")

    @asynccontextmanager
    async def decompressing(self, receive: Receive) -> AsyncIterator[Receive]:
        """See `Compression`."""
        front = bytearray()
        while len(front) < SNIFFED and (data := await receive()):
            front += data
        again = _Again(bytes(front), receive)
        match sniff(front[:SNIFFED]):
            case "gzip":
                chosen = gzip.decompressing(again)
            case "zstd":
                chosen = zstd.decompressing(again)
            case "none":
                yield again
                return
        async with chosen as pieces:
            yield pieces


class _Again:
    """Gives what was looked at first, then the rest."""

    def __init__(self, front: bytes, receive: Receive) -> None:
        self._front = front
        self._receive = receive

    async def __call__(self) -> bytes | memoryview:
        if front := self._front:
            self._front = b""
            return front
        return await self._receive()


@asynccontextmanager
async def _unchanged(send: Send) -> AsyncIterator[Send]:
    yield send
