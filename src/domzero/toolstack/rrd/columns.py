"""The history of one source: a ring of rows for each resolution and consolidation function.

Row number r of a resolution ends at r times its `seconds` (since 1970) and stands at place r - 1 of its ring, so every
column of an owner has the same row at the same place, and the steps of a minute are one slice.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from domzero.toolstack.rrd.sources import UNKNOWN

STEP = 5
"""Seconds."""
AVERAGE, MIN, MAX = "AVERAGE", "MIN", "MAX"
AVERAGES = (AVERAGE,)
EXTREMES = (AVERAGE, MIN, MAX)


class Resolution(NamedTuple):
    """How many steps a row covers, and how many rows there are."""

    steps: int
    rows: int

    @property
    def seconds(self) -> int:
        """From one row to the next."""
        return self.steps * STEP


RESOLUTIONS = (Resolution(1, 120), Resolution(12, 120), Resolution(720, 168), Resolution(17_280, 366))
"""Ten minutes, two hours, a week, a year."""

Digest = tuple[float, int, float, float]
"""Sum of the known values, how many there were, the smallest and the greatest."""
NOTHING: Digest = (0.0, 0, math.inf, -math.inf)


def digest(values: Sequence[float]) -> Digest:
    """What is known of some steps."""
    total = sum(values)
    if total == total and values:
        return total, len(values), min(values), max(values)
    known = [value for value in values if value == value]
    return (sum(known), len(known), min(known), max(known)) if known else NOTHING


def merged(one: Digest, other: Digest) -> Digest:
    """What is known of the steps of both."""
    return one[0] + other[0], one[1] + other[1], min(one[2], other[2]), max(one[3], other[3])


def row_value(function: str, known: Digest, steps: int) -> float:
    """What a row of so many steps shows: unknown when less than half of them are known."""
    if not known[1] or 2 * known[1] < steps:
        return UNKNOWN
    if function == AVERAGE:
        return known[0] / known[1]
    return known[2] if function == MIN else known[3]


class Column:
    """One recorded source: a ring of values for each resolution and function, and what the rows under way know."""

    __slots__ = ("pending", "rings")

    def __init__(self, functions: Sequence[str]) -> None:
        self.rings: list[tuple[array[float], ...]] = [
            tuple(array("d", [UNKNOWN]) * resolution.rows for _ in (functions if level else AVERAGES))
            for level, resolution in enumerate(RESOLUTIONS)
        ]
        self.pending: list[Digest] = [NOTHING] * len(RESOLUTIONS)

    def finish_row(self, functions: Sequence[str], level: int, row: int, last: int) -> None:
        """Write the row under way, leave those after it up to `last` unknown, and tell the next resolution."""
        known, resolution = self.pending[level], RESOLUTIONS[level]
        for function, ring in zip(functions, self.rings[level], strict=True):
            ring[(row - 1) % resolution.rows] = row_value(function, known, resolution.steps)
        if last > row:
            self.blank(level, row + 1, last)
        self.pending[level] = NOTHING
        if level + 1 < len(RESOLUTIONS):
            self.pending[level + 1] = merged(self.pending[level + 1], known)

    def blank(self, level: int, first: int, last: int) -> None:
        """Make the rows of those numbers unknown."""
        size = RESOLUTIONS[level].rows
        for ring in self.rings[level]:
            if last - first + 1 >= size:
                ring[:] = array("d", [UNKNOWN]) * size
                continue
            for row in range(first, last + 1):
                ring[(row - 1) % size] = UNKNOWN

    def rows(self, level: int, function: int, newest: int, first: int, last: int) -> array[float]:
        """The rows `first` to `last` of a ring whose newest is given; NaN for those that are not in it."""
        ring, size = self.rings[level][function], RESOLUTIONS[level].rows
        begin, end = max(first, newest - size + 1), min(last, newest)
        if begin > end:
            return array("d", [UNKNOWN]) * (last - first + 1)
        here, there = (begin - 1) % size, (end - 1) % size
        found = ring[here : there + 1] if here <= there else ring[here:] + ring[: there + 1]
        if begin > first:
            found = array("d", [UNKNOWN]) * (begin - first) + found
        if end < last:
            found.extend(array("d", [UNKNOWN]) * (last - end))
        return found

    def turn(self, level: int, newest: int, moved: int) -> None:
        """Let the newest row have another number, and those before it likewise."""
        size = RESOLUTIONS[level].rows
        for function, ring in enumerate(self.rings[level]):
            values = self.rows(level, function, newest, newest - size + 1, newest)
            at = moved % size
            ring[:] = values[size - at :] + values[: size - at]


def is_empty(column: Column | None) -> bool:
    """Whether nothing is known of a source any more."""
    return column is None or all(value != value for rings in column.rings for ring in rings for value in ring)
