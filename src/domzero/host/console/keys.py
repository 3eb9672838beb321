"""From a keyboard's keys, by X11's numbers (keysymdef.h), to what a VT102's successor sends (xterm's ctlseqs)."""

from __future__ import annotations

from collections.abc import Mapping

CONTROL = frozenset({0xFFE3, 0xFFE4})
META = frozenset({0xFFE7, 0xFFE8, 0xFFE9, 0xFFEA})

_ARROWS = {0xFF51: "D", 0xFF52: "A", 0xFF53: "C", 0xFF54: "B"}
_KEYPAD_ARROWS = {0xFF96: "D", 0xFF97: "A", 0xFF98: "C", 0xFF99: "B"}
_UNICODE = 0x01000000


def _named() -> Mapping[int, bytes]:
    keys = {
        0xFF08: b"\x7f", 0xFF09: b"\t", 0xFF0A: b"\n", 0xFF0D: b"\r", 0xFF1B: b"\x1b", 0xFF8D: b"\r",
        0xFFFF: b"\x1b[3~",
        0xFF50: b"\x1b[1~", 0xFF55: b"\x1b[5~", 0xFF56: b"\x1b[6~", 0xFF57: b"\x1b[4~", 0xFF63: b"\x1b[2~",
        0xFF95: b"\x1b[1~", 0xFF9A: b"\x1b[5~", 0xFF9B: b"\x1b[6~", 0xFF9C: b"\x1b[4~", 0xFF9E: b"\x1b[2~",
        0xFF9F: b"\x1b[3~", 0xFE20: b"\x1b[Z",
        0xFFAA: b"*", 0xFFAB: b"+", 0xFFAC: b",", 0xFFAD: b"-", 0xFFAE: b".", 0xFFAF: b"/", 0xFFBD: b"=",
    }  # fmt: skip
    keys |= {0xFFB0 + digit: str(digit).encode() for digit in range(10)}
    keys |= {0xFFBE + number: b"\x1bO" + letter.encode() for number, letter in enumerate("PQRS")}
    codes = (15, 17, 18, 19, 20, 21, 23, 24)
    return keys | {0xFFC2 + number: b"\x1b[%d~" % code for number, code in enumerate(codes)}


_NAMED = _named()


def typed(symbol: int, *, control: bool = False, meta: bool = False, application: bool = False) -> bytes:
    """What pressing a key sends; nothing for one that means nothing by itself.

    `control` and `meta` are held down meanwhile; with `application` the arrows are those of DECCKM.
    """
    arrow = _ARROWS.get(symbol) or _KEYPAD_ARROWS.get(symbol)
    if arrow is not None:
        sent = (b"\x1bO" if application else b"\x1b[") + arrow.encode()
    else:
        sent = _NAMED.get(symbol, b"") or _character(symbol, control)
    return b"\x1b" + sent if meta and sent else sent


def _character(symbol: int, control: bool) -> bytes:
    code = symbol - _UNICODE if symbol > _UNICODE else symbol
    printable = 0x20 <= code < 0x7F or 0xA0 <= code <= 0xFF or (symbol > _UNICODE and 0xFF < code <= 0x10FFFF)
    if not printable or 0xD800 <= code <= 0xDFFF:
        return b""
    if control and (0x40 <= code < 0x7F or code == 0x20):
        return bytes((code & 0x1F,))
    return chr(code).encode()
