"""An archive out of a dump in rrdtool's XML, such as `/vm_rrd` of another host gave. Without I/O.

Rows are taken whose length and function are among those kept here, the newest of them where there are more. Rows that
are under way are put together of finer ones: rrdtool and XenServer write down differently what they know of those.
Source: rrddump(1). The document comes from a client.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from domzero.toolstack.rrd.archive import COLUMNS_MOST, Archive
from domzero.toolstack.rrd.columns import (
    AVERAGES,
    EXTREMES,
    NOTHING,
    RESOLUTIONS,
    STEP,
    Column,
    Digest,
    merged,
)
from domzero.toolstack.rrd.sources import UNKNOWN, Kind, Source
from domzero.wire.strict_xml import strict_parser

TEXT_MOST = 256
KINDS_OF_ROWS_MOST = 64
FIELDS = frozenset({"name", "type", "min", "max", "cf", "pdp_per_row"})
"""Of sources and kinds of rows, what is looked at."""
DEPTH_MOST = 5
LATEST = 1e11
"""Seconds since 1970 that no clock shows."""

KINDS = {kind.value: kind for kind in Kind} | {"COUNTER": Kind.DERIVE}
"""rrdtool's types that there are here; all others are taken as values."""


class DumpError(ValueError):
    """The document is no dump that can be taken; says why."""


def read_dump(document: bytes) -> Archive:
    """The archive that a dump holds: its sources are recorded, and go on where one of the same name is measured.

    Takes its time. Raises `DumpError`.
    """
    dump = _Dump()
    try:
        strict_parser(dump, _refuse).Parse(document, True)
    except expat.ExpatError as error:
        raise DumpError(f"it is no XML: {error}") from None
    return _archive(dump)


@dataclass(slots=True)
class _Rows:
    """All rows of one length and function, oldest first, each with a value of every source."""

    function: str = ""
    steps: int = 0
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class _Dump:
    """Takes what is in the document."""

    step: float = UNKNOWN
    last: float = UNKNOWN
    sources: list[Source] = field(default_factory=list)
    rows: list[_Rows] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _text: str = ""
    _fields: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = ""
        if self._path[0] != "rrd" or len(self._path) > DEPTH_MOST:
            _refuse("it is not what rrdtool and XenServer write")
        if len(self._path) == 2:
            self._fields = {}
            if name == "rra":
                if len(self.rows) >= KINDS_OF_ROWS_MOST:
                    _refuse("there are too many kinds of rows")
                self.rows.append(_Rows())

    def characters(self, text: str) -> None:
        self._text += text
        if len(self._text) > TEXT_MOST:
            _refuse("a text in it is too long")

    def end(self, name: str) -> None:
        text, self._text = self._text.strip(), ""
        part = self._path[1] if len(self._path) > 1 else ""
        match len(self._path):
            case 5 if name == "v":
                self.rows[-1].values.append(_finite(text)) if part == "rra" else _refuse("a value is out of place")
            case 4 if name == "row" and len(self.rows[-1].values) % max(1, len(self.sources)):
                _refuse("a row has not as many values as there are sources")
            case 3 if name in FIELDS:
                self._fields[name] = text
            case 2:
                self._end_part(name, text)
        self._path.pop()

    def _end_part(self, name: str, text: str) -> None:
        if name == "step":
            self.step = _number(text)
        elif name == "lastupdate":
            self.last = _number(text)
        elif name == "rra":
            self.rows[-1].function = self._fields.get("cf", "")
            steps = self._fields.get("pdp_per_row", "")
            self.rows[-1].steps = int(steps) if steps.isascii() and steps.isdecimal() and len(steps) < 10 else 0
        elif name == "ds":
            if self.rows or len(self.sources) >= COLUMNS_MOST:
                _refuse("there are too many sources, or they come too late")
            self.sources.append(_source(self._fields))


def _refuse(text: str) -> NoReturn:
    raise DumpError(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _refuse(f"{text[:20]!r} is no number")


def _finite(text: str) -> float:
    value = _number(text)
    return value if math.isfinite(value) else UNKNOWN


def _source(fields: dict[str, str]) -> Source:
    name = fields.get("name", "")
    if not name or not name.isprintable():
        _refuse("a source has no name")
    # What has no limit has none in rrdtool's dumps, and an infinite one in XenServer's.
    lowest, highest = _number(fields.get("min", "NaN")), _number(fields.get("max", "NaN"))
    lowest, highest = -math.inf if math.isnan(lowest) else lowest, math.inf if math.isnan(highest) else highest
    return Source(name, "", "", KINDS.get(fields.get("type", ""), Kind.GAUGE), lowest, highest)


def _archive(dump: _Dump) -> Archive:
    if dump.step != STEP or not 0 < dump.last < LATEST:
        _refuse(f"its steps are not of {STEP} seconds, or it says not when it was updated")
    count = len(dump.sources)
    if not count or len({source.name for source in dump.sources}) != count:
        _refuse("there are no sources, or two of one name")
    functions = EXTREMES if any(rows.function in EXTREMES[1:] for rows in dump.rows) else AVERAGES
    archive = Archive(functions)
    archive.last, archive.steps_done = dump.last, math.floor(dump.last / STEP)
    columns = [Column(functions) for _ in dump.sources]
    for rows in dump.rows:
        _fill(columns, functions, rows, archive.steps_done)
    for column in columns:
        for level in range(2, len(RESOLUTIONS)):
            column.pending[level] = _under_way(column, level, archive.steps_done)
    unknown = [UNKNOWN] * count
    archive.restore(dump.sources, list(columns), (unknown, [0.0] * count, [0.0] * count))
    return archive


def _fill(columns: Sequence[Column], functions: Sequence[str], rows: _Rows, steps_done: int) -> None:
    """Put rows into their rings; those of other lengths and functions than are kept go nowhere."""
    level = next((at for at, resolution in enumerate(RESOLUTIONS) if resolution.steps == rows.steps), None)
    if level is None or rows.function not in (functions if level else AVERAGES):
        return
    size, newest = RESOLUTIONS[level].rows, steps_done // rows.steps
    there = min(size, len(rows.values) // len(columns), newest)
    at = functions.index(rows.function) if level else 0
    for number, column in enumerate(columns):
        ring = column.rings[level][at]
        values = rows.values[number :: len(columns)]
        for back in range(there):
            ring[(newest - back - 1) % size] = values[-1 - back]


def _under_way(column: Column, level: int, steps_done: int) -> Digest:
    """What is known of a row that is not finished yet, from the finer rows that are."""
    finer, steps = RESOLUTIONS[level - 1], RESOLUTIONS[level].steps
    known = NOTHING
    for row in range(steps_done // steps * steps // finer.steps + 1, steps_done // finer.steps + 1):
        values = [ring[(row - 1) % finer.rows] for ring in column.rings[level - 1]]
        average = values[0]
        if average == average:
            low, high = (values[1], values[2]) if len(values) == len(EXTREMES) else (average, average)
            known = merged(known, (average * finer.steps, finer.steps, low, high))
    return known
