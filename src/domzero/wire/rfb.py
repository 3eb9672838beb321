"""The server's side of the remote framebuffer protocol (RFC 6143, versions 3.3, 3.7 and 3.8), without I/O.

Whoever let the viewer in has authenticated it, so the only security type is None. Pictures are indexes into a palette
of at most 256 colours, sent raw in whatever format of pixels the viewer asks for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

VERSION = b"RFB 003.008\n"
LONGEST_CUT_TEXT = 1 << 20
"""What a viewer's clipboard may hold; it is dropped."""

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

_VERSION = re.compile(rb"RFB (\d{3})\.(\d{3})\n")
_NONE = 1
"""The security type without authentication (section 7.2.1)."""
_RAW = 0


class RfbError(Exception):
    """The viewer does not speak the protocol."""


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """The viewer wants to see a part of the screen; with `incremental` only what has changed."""

    incremental: bool
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed or let go. `symbol` is X11's number of it."""

    down: bool
    symbol: int


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of the picture; `pixels` has a byte for each, an index into the palette, line by line."""

    x: int
    y: int
    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the viewer wants pixels (section 7.4)."""

    bits: int
    depth: int
    big_endian: bool
    true_colour: bool
    maxima: Colour
    shifts: Colour

    def packed(self) -> bytes:
        """The 16 bytes of the wire."""
        flags = (self.bits, self.depth, self.big_endian, self.true_colour)
        return struct.pack(">BB??HHHBBB3x", *flags, *self.maxima, *self.shifts)

    def pixel(self, index: int, colour: Colour) -> bytes:
        """A pixel of that colour, whose place in the palette is the index."""
        value = index
        if self.true_colour:
            parts = zip(colour, self.maxima, self.shifts, strict=True)
            value = sum((level * most // 255) << shift for level, most, shift in parts)
        return (value & ((1 << self.bits) - 1)).to_bytes(self.bits // 8, "big" if self.big_endian else "little")


TRUE_COLOUR = PixelFormat(32, 24, False, True, (255, 255, 255), (16, 8, 0))
"""What viewers get that do not ask for something else."""


class _State(Enum):
    VERSION = 12
    SECURITY = 1
    CLIENT_INIT = 2
    RUNNING = 3


Message = UpdateRequest | Key


class RfbServer:
    """One viewer. `output` is to be sent after each other call; it may be empty."""

    def __init__(self, width: int, height: int, name: str, palette: Sequence[Colour]) -> None:
        self.format = TRUE_COLOUR
        self._size = (width, height)
        self._name = name.encode("latin-1", "replace")
        self._palette = tuple(palette)
        self._state = _State.VERSION
        self._minor = 8
        self._input = bytearray()
        self._output = bytearray(VERSION)
        self._skip = 0
        self._pixels: list[bytes] | None = None
        """By index, in the viewer's format; made when a picture is sent in it."""
        self._owes_colours = False

    @property
    def is_running(self) -> bool:
        """Whether the handshake is over."""
        return self._state is _State.RUNNING

    def output(self) -> bytes:
        """What is to be sent now."""
        self._tell_colours()
        data = bytes(self._output)
        self._output.clear()
        return data

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes of the viewer; what they ask for comes back. Raises `RfbError`; nothing may follow then."""
        self._input += data
        messages: list[Message] = []
        while (taken := self._take()) is not None:
            messages += taken
        return messages

    def send(self, rectangles: Iterable[Rectangle]) -> None:
        """Answer an update request, once."""
        sent = list(rectangles)
        self._tell_colours()
        self._output += struct.pack(">BxH", 0, len(sent))
        for part in sent:
            self._output += struct.pack(">HHHHi", part.x, part.y, part.width, part.height, _RAW)
            self._output += self._encoded(part.pixels)

    def ring(self) -> None:
        """Sound the viewer's bell."""
        if self.is_running:
            self._output += b"\x02"

    def _encoded(self, pixels: bytes) -> bytes:
        if self._pixels is None:
            padded = [*self._palette, *[(0, 0, 0)] * (256 - len(self._palette))]
            self._pixels = [self.format.pixel(index, colour) for index, colour in enumerate(padded)]
        if self.format.bits == 8:
            return pixels.translate(b"".join(self._pixels))
        return b"".join(map(self._pixels.__getitem__, pixels))

    def _tell_colours(self) -> None:
        """Section 7.6.2: the colours behind the indexes, in 16 bits each; once, however often they were asked for."""
        if self._owes_colours:
            self._owes_colours = False
            self._output += struct.pack(">BxHH", 1, 0, len(self._palette))
            for colour in self._palette:
                self._output += struct.pack(">HHH", *(level * 257 for level in colour))

    def _take(self) -> list[Message] | None:
        """Deal with one step of the handshake or one message; None when it is not complete."""
        if self._skip:
            gone = min(self._skip, len(self._input))
            del self._input[:gone]
            self._skip -= gone
        if not self._input or self._skip:
            return None
        match self._state:
            case _State.VERSION:
                return self._take_version()
            case _State.SECURITY:
                return self._take_security()
            case _State.CLIENT_INIT:
                return self._take_client_init()
            case _State.RUNNING:
                return self._take_message()

    def _take_version(self) -> list[Message] | None:
        line = bytes(self._input[:12])
        if len(line) < 12:
            if not VERSION.startswith(line[:4]):
                raise RfbError("the viewer speaks no RFB")
            return None
        match = _VERSION.fullmatch(line)
        if match is None or int(match[1]) < 3:
            raise RfbError("the viewer speaks no RFB of version 3")
        del self._input[:12]
        # Versions between the published ones count as 3.3 (section 7.1.1), later ones as the newest.
        minor = int(match[2])
        self._minor = 8 if minor >= 8 or int(match[1]) > 3 else 7 if minor == 7 else 3
        if self._minor == 3:
            self._output += struct.pack(">I", _NONE)
            self._state = _State.CLIENT_INIT
        else:
            self._output += bytes((1, _NONE))
            self._state = _State.SECURITY
        return []

    def _take_security(self) -> list[Message]:
        if self._input.pop(0) != _NONE:
            raise RfbError("the viewer chose a security type that was not offered")
        if self._minor == 8:
            self._output += struct.pack(">I", 0)
        self._state = _State.CLIENT_INIT
        return []

    def _take_client_init(self) -> list[Message]:
        del self._input[0]  # whether others may look too: they may
        self._output += struct.pack(">HH", *self._size) + self.format.packed()
        self._output += struct.pack(">I", len(self._name)) + self._name
        self._state = _State.RUNNING
        return []

    def _take_message(self) -> list[Message] | None:
        size = _SIZES.get(self._input[0])
        if size is None:
            raise RfbError(f"the viewer sent a message of the unknown type {self._input[0]}")
        if len(self._input) < size:
            return None
        body = bytes(self._input[:size])
        del self._input[:size]
        match body[0]:
            case 0:
                self._set_format(_format(body))
            case 2:
                self._skip = 4 * int.from_bytes(body[2:4], "big")  # all viewers have raw pixels
            case 3:
                return [UpdateRequest(*struct.unpack(">?HHHH", body[1:]))]
            case 4:
                return [Key(*struct.unpack(">?xxI", body[1:]))]
            case 6:
                self._skip = int.from_bytes(body[4:8], "big")
                if self._skip > LONGEST_CUT_TEXT:
                    raise RfbError("the viewer's clipboard is too large")
            case _:
                return []  # the pointer: a text console has none
        return []

    def _set_format(self, format: PixelFormat) -> None:
        """Cheap, however often a viewer does it: the work is done when it is sent something."""
        self.format, self._pixels, self._owes_colours = format, None, not format.true_colour


_SIZES = {0: 20, 2: 4, 3: 10, 4: 8, 5: 6, 6: 8}
"""By type of message, how many bytes it has, or has before the part that varies (section 7.5)."""


def _format(message: bytes) -> PixelFormat:
    bits, depth, big_endian, true_colour, *rest = struct.unpack(">4xBB??HHHBBB3x", message)
    red, green, blue, *shifts = rest
    if bits not in (8, 16, 32) or any(shift >= bits for shift in shifts):
        raise RfbError("the viewer wants pixels in a format that does not exist")
    return PixelFormat(bits, depth, big_endian, true_colour, (red, green, blue), (shifts[0], shifts[1], shifts[2]))
