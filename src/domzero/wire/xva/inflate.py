"""Decompression of gzip in bounded pieces, and the look that tells what an archive is compressed with."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal

from domzero.wire.xva.model import BLOCK, Bytes, premature_end, unreadable

Compression = Literal["none", "gzip", "zstd"]

SNIFFED = 4
"""Bytes from the front of an archive by which its compression is known."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)

_SLICE = 32 << 10
"""What is given to zlib at a time: it copies what is behind a member's end, and members may be tiny."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def sniff(prefix: bytes | bytearray) -> Compression:
    """How an archive is compressed, from its first `SNIFFED` bytes (fewer where there are no more)."""
    if prefix.startswith(_GZIP):
        return "gzip"
    if prefix.startswith(_ZSTD) or int.from_bytes(prefix[:4], "little") in _ZSTD_SKIPPABLE:
        return "zstd"
    return "none"


class Inflater:
    """Takes gzip of one or more members in pieces of any size, and gives pieces of at most `BLOCK` bytes.

    A piece is made when it is asked for, so that a bomb takes no room. CRC and length of each member are checked.
    Raises `XvaError`.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._begun = self._padded = False

    def feed(self, data: Bytes) -> Iterator[bytes]:
        """What these bytes decompress to. Exhaust the iterator before the next feed."""
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            yield from self._feed(view[start : start + _SLICE])

    def _feed(self, data: memoryview) -> Iterator[bytes]:
        rest: Bytes = data
        while len(rest):
            if self._member.eof and not (rest := self._next(rest)):
                return
            piece = self._some(rest)
            while piece:
                yield piece
                # zlib may hold back what does not fit though it has taken all of its input.
                piece = self._some(self._member.unconsumed_tail) if len(piece) == BLOCK else b""
            rest = self._member.unused_data

    def _some(self, data: Bytes) -> bytes:
        self._begun = True
        try:
            return self._member.decompress(data, BLOCK)
        except zlib.error as error:
            raise unreadable(f"damaged gzip: {error}") from None

    def finish(self) -> None:
        """Say that nothing follows. Raises `XvaError` where a member is incomplete, or there was none."""
        if not self._member.eof or not self._begun:
            raise premature_end()

    def _next(self, rest: Bytes) -> Bytes:
        """Begin the next member; zeros behind a member are padding, which tapes have."""
        if self._padded or rest[0] == 0:
            self._padded = True
            if any(rest):
                raise unreadable("there is something else behind the gzip")
            return b""
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        return rest
