"""The viewer's side of the remote framebuffer protocol (RFC 6143), for one picture of the whole screen; without I/O."""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass

from domzero.wire.rfb import PixelFormat, RfbError

LARGEST = 64 << 20
"""Bytes that a picture may have."""
LONGEST_TEXT = 1 << 20
VERSION = b"RFB 003.008\n"

FORMAT = PixelFormat(32, 24, False, True, (255, 255, 255), (0, 8, 16))
"""Red, green, blue and a byte that means nothing, in this order."""

_NONE = 1
_RAW = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """What a screen shows: four bytes for each pixel, of which the last means nothing, line by line."""

    width: int
    height: int
    pixels: bytes


class PictureReader:
    """One connection to a server that asks for no password.

    Feed it with `receive` and send `output` after each call, until there is a `picture`.
    """

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self._input = bytearray()
        self._output = bytearray()
        self._steps = self._conversation()
        self._wanted = next(self._steps)

    def output(self) -> bytes:
        """What is to be sent now."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Take bytes of the server. Raises `RfbError` when they are not RFB or ask for what is not done here."""
        self._input += data
        while self.picture is None and len(self._input) >= self._wanted:
            piece = bytes(self._input[: self._wanted])
            del self._input[: self._wanted]
            try:
                self._wanted = self._steps.send(piece)
            except StopIteration as end:
                self.picture = end.value

    def _conversation(self) -> Generator[int, bytes, Picture]:
        """Yields how many bytes are needed next, and is sent them."""
        yield from self._agree()
        header = yield 24
        width, height = struct.unpack(">HH", header[:4])
        yield from self._skip(int.from_bytes(header[20:24], "big"))
        if not 0 < width * height * 4 <= LARGEST:
            raise RfbError(f"a screen of {width} by {height} makes no picture")
        self._output += struct.pack(">B3x", 0) + FORMAT.packed() + struct.pack(">BxHi", 2, 1, _RAW)
        pixels = bytearray(width * height * 4)
        incremental, missing = False, width * height
        while missing > 0:
            self._output += struct.pack(">B?HHHH", 3, incremental, 0, 0, width, height)
            missing -= yield from self._update(pixels, width, height)
            incremental = True
        return Picture(width, height, bytes(pixels))

    def _agree(self) -> Generator[int, bytes, None]:
        version = yield 12
        if version != VERSION:
            raise RfbError("the server does not speak RFB 3.8")
        self._output += VERSION
        offered = yield int((yield 1)[0])
        if _NONE not in offered:
            raise RfbError("the server wants to know who asks")
        self._output.append(_NONE)
        if (yield 4) != bytes(4):
            raise RfbError("the server refuses")
        self._output.append(1)  # others may go on looking

    def _update(self, pixels: bytearray, width: int, height: int) -> Generator[int, bytes, int]:
        """Read until an update is complete; the number of pixels in it."""
        while (kind := (yield 1)[0]) != 0:
            yield from self._other(kind)
        (count,) = struct.unpack(">xH", (yield 3))
        read = 0
        for _ in range(count):
            x, y, across, down, encoding = struct.unpack(">HHHHi", (yield 12))
            if encoding != _RAW or x + across > width or y + down > height:
                raise RfbError("the server sends what nobody asked for")
            for line in range(y, y + down) if across else ():
                at = (line * width + x) * 4
                pixels[at : at + across * 4] = yield across * 4
            read += across * down
        return read

    def _other(self, kind: int) -> Generator[int, bytes, None]:
        """Messages that no picture needs: the bell, and the server's clipboard."""
        if kind == 3:
            yield from self._skip(int.from_bytes((yield 7)[3:], "big"))
        elif kind != 2:
            raise RfbError(f"the server sends a message of the unknown type {kind}")

    def _skip(self, count: int) -> Generator[int, bytes, None]:
        if count > LONGEST_TEXT:
            raise RfbError("the server's text is too long")
        yield count
