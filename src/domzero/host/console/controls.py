"""Takes out of a guest's output the control sequences that a terminal emulator would store at any length."""

from __future__ import annotations

import re
from enum import Enum

LONGEST = 64
"""Bytes that the parameters of a sequence may have."""

_ESC = 0x1B
_STRINGS = frozenset(b"]P_^X")
"""What begins a string by ECMA-48, 8.3.89, 8.3.27, 8.3.2, 8.3.94 and 8.3.143; none means anything here."""
_STRING_END = re.compile(rb"[\x07\x18\x1a\x1b]")


class _State(Enum):
    GROUND = 0
    ESCAPE = 1
    SEQUENCE = 2
    STRING = 3
    STRING_ESCAPE = 4


class Controls:
    """The filter of one terminal. It keeps at most `LONGEST` bytes between two calls."""

    def __init__(self) -> None:
        self._state = _State.GROUND
        self._held = bytearray()

    def clean(self, data: bytes) -> bytes:
        """What is left of the output's next piece; a sequence goes out when it is complete."""
        out = bytearray()
        at = 0
        while at < len(data):
            if self._state is _State.GROUND:
                at = self._text(data, at, out)
            elif self._state is _State.STRING:
                at = self._string(data, at)
            else:
                self._step(data[at], out)
                at += 1
        return bytes(out)

    def _text(self, data: bytes, at: int, out: bytearray) -> int:
        end = data.find(_ESC, at)
        if end < 0:
            out += data[at:]
            return len(data)
        out += data[at:end]
        self._held = bytearray((_ESC,))
        self._state = _State.ESCAPE
        return end + 1

    def _string(self, data: bytes, at: int) -> int:
        match = _STRING_END.search(data, at)
        if match is None:
            return len(data)
        self._state = _State.STRING_ESCAPE if data[match.start()] == _ESC else _State.GROUND
        return match.end()

    def _step(self, byte: int, out: bytearray) -> None:
        """One byte inside a sequence."""
        if self._state is _State.STRING_ESCAPE:
            self._state = _State.GROUND
            if byte != ord("\\"):  # the string was broken off by another sequence
                self._held = bytearray((_ESC,))
                self._state = _State.ESCAPE
                self._step(byte, out)
            return
        if byte == _ESC:
            self._held = bytearray((_ESC,))
            self._state = _State.ESCAPE
            return
        if self._state is _State.SEQUENCE and self._held[1] == ord("["):
            self._parameter(byte, out)
            return
        self._held.append(byte)
        if byte in _STRINGS and self._state is _State.ESCAPE:
            self._state = _State.STRING
        elif self._state is _State.ESCAPE and (byte == ord("[") or 0x20 <= byte < 0x30):
            self._state = _State.SEQUENCE
        else:
            self._state = _State.GROUND
            if 0x20 <= byte < 0x7F:
                out += self._held

    def _parameter(self, byte: int, out: bytearray) -> None:
        """One byte behind `ESC [`."""
        if byte < 0x20 and byte not in (0x18, 0x1A):
            out.append(byte)  # carried out at once, in the middle of the sequence
            return
        self._held.append(byte)
        if 0x20 <= byte < 0x40 and len(self._held) <= LONGEST:
            return
        self._state = _State.GROUND
        if 0x40 <= byte < 0x7F:
            out += self._held
