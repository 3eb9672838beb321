"""An archive as bytes, and back: what is kept over a restart.

The file is a line that names the form, then deflated: the length of a JSON object, the object, and all numbers as one
array of doubles, in the order in which `pack` puts them. One from a machine with the other order of bytes is read too.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from typing import Any

import orjson

from domzero.toolstack.rrd.archive import COLUMNS_MOST, Archive
from domzero.toolstack.rrd.columns import EXTREMES, RESOLUTIONS, STEP, Column
from domzero.toolstack.rrd.sources import Kind, Source

MAGIC = b"domzero archive 1\n"
SIZE_MOST = 64 << 20
"""Bytes that a file may inflate to: more than the greatest archive there can be."""
TEXT_MOST = 1024

_HEAD = struct.Struct("<I")
_PENDING = range(2, len(RESOLUTIONS))
"""The resolutions whose rows under way are not found in finer ones."""


class DamagedError(Exception):
    """These bytes are no archive; the text says why."""


def pack(archive: Archive) -> list[bytes]:
    """The archive's content as it is now, in pieces; `deflate` makes the file of them, in a thread if need be."""
    head = {
        "byteorder": sys.byteorder,
        "functions": archive.functions,
        "steps_done": archive.steps_done,
        "chosen": archive.chosen,
        "sources": [
            [source.name, source.description, source.units, source.kind.value, source.standard, column is not None]
            for source, column in zip(archive.sources, archive.columns, strict=True)
        ],
    }
    text = orjson.dumps(head)
    limits = [limit for source in archive.sources for limit in (source.minimum, source.maximum)]
    singles = array("d", [archive.last, *limits, *(number for one in archive.inner() for number in one)])
    pieces = [_HEAD.pack(len(text)), text, singles.tobytes()]
    for column in archive.columns:
        if column is not None:
            pieces.append(array("d", [number for level in _PENDING for number in column.pending[level]]).tobytes())
            pieces.extend(ring.tobytes() for rings in column.rings for ring in rings)
    return pieces


def deflate(pieces: list[bytes]) -> bytes:
    """The content of a file."""
    return MAGIC + zlib.compress(b"".join(pieces), level=1)


def unpack(data: bytes) -> Archive:
    """The archive in a file. Raises `DamagedError` for anything else, and never takes more memory than `SIZE_MOST`."""
    if not data.startswith(MAGIC):
        raise DamagedError("it does not begin as an archive does")
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(data[len(MAGIC) :], SIZE_MOST)
        if not inflater.eof or inflater.unused_data:
            raise DamagedError("it is longer or shorter than it should be")
        return restored(content)
    except (zlib.error, struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def restored(content: bytes) -> Archive:
    """The archive of which `pack` made these bytes. Raises `ValueError` and its like for others."""
    (length,) = _HEAD.unpack_from(content)
    head = orjson.loads(content[_HEAD.size : _HEAD.size + length])
    numbers = array("d")
    numbers.frombytes(content[_HEAD.size + length :])
    if head["byteorder"] != sys.byteorder:
        numbers.byteswap()
    return _build(head, _Numbers(numbers))


class _Numbers:
    """Takes numbers from the front. Raises `ValueError` when there are not that many."""

    def __init__(self, numbers: array[float]) -> None:
        self._numbers = numbers
        self._at = 0

    def take(self, count: int) -> array[float]:
        found = self._numbers[self._at : self._at + count]
        self._at += count
        if len(found) != count:
            raise ValueError("numbers are missing")
        return found

    def end(self) -> None:
        if self._at != len(self._numbers):
            raise ValueError("there are too many numbers")


def _build(head: dict[str, Any], numbers: _Numbers) -> Archive:
    functions = tuple(head["functions"])
    if functions not in (EXTREMES[:1], EXTREMES):
        raise ValueError("unknown functions")
    archive = Archive(functions)
    archive.last = numbers.take(1)[0]
    archive.steps_done = _count(head["steps_done"])
    if archive.last == archive.last and archive.steps_done != math.floor(archive.last / STEP):
        raise ValueError("the times do not fit together")
    archive.chosen = {_text(name): bool(wish) for name, wish in head["chosen"].items()}
    rows = head["sources"]
    limits = numbers.take(2 * len(rows))
    sources = [_source(row, limits[2 * at], limits[2 * at + 1]) for at, row in enumerate(rows)]
    recorded = [bool(row[5]) for row in rows]
    if sum(recorded) > COLUMNS_MOST or len({source.name for source in sources}) != len(sources):
        raise ValueError("the sources do not fit together")
    inner = [list(numbers.take(len(rows))) for _ in archive.inner()]
    archive.restore(sources, [_column(functions, numbers) if kept else None for kept in recorded], inner)
    numbers.end()
    return archive


def _source(row: list[Any], minimum: float, maximum: float) -> Source:
    name, description, units, kind, standard, _ = row
    return Source(_text(name), _text(description), _text(units), Kind(kind), minimum, maximum, bool(standard))


def _column(functions: tuple[str, ...], numbers: _Numbers) -> Column:
    column = Column(functions)
    for level in _PENDING:
        total, known, low, high = numbers.take(4)
        column.pending[level] = (total, int(known), low, high)
    column.rings = [
        tuple(numbers.take(resolution.rows) for _ in rings)
        for resolution, rings in zip(RESOLUTIONS, column.rings, strict=True)
    ]
    return column


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MOST:
        raise ValueError("a text is none")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 60:
        raise ValueError("a count is none")
    return value
