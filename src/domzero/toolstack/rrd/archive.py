"""A round-robin archive: the history of one owner's sources in four resolutions, of a size that does not grow.

Time is cut into steps of `STEP` seconds that end where the clock is a multiple of it. A source's value in a step is the
mean, weighted by time, of the rates that were known in it; it is unknown (NaN) where less than half of the step was.
Each archive row covers a number of steps and holds their average (of those known, if at least half were), smallest and
greatest value. These are rrdtool's rules (rrdcreate(1)) with its `xff` at one half.

All sources of an owner are read at the same moment, and each is a column: an `array('d')` for every resolution and
function. A reading costs a few passes over the sources; rows of a minute are made from slices of columns.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from domzero.toolstack.rrd.columns import (
    AVERAGES,
    NOTHING,
    RESOLUTIONS,
    STEP,
    Column,
    Digest,
    digest,
    is_empty,
    merged,
)
from domzero.toolstack.rrd.sources import UNKNOWN, Kind, Measured, Source

HEARTBEAT = 300.0
"""Seconds between two readings above which nothing is known of the time between them."""
COLUMNS_MOST = 1024
"""Sources that are recorded for one owner at most."""


class Archive:
    """See the module. `now` is always seconds since 1970.

    `functions` says what rows of a minute and more hold. Row number r of a resolution ends at r times its `seconds`.
    """

    __slots__ = (
        "_counters", "_known", "_layout", "_places", "_raw", "_sums", "chosen", "columns", "functions", "last", "names",
        "rates", "sources", "steps_done",
    )  # fmt: skip

    def __init__(self, functions: Sequence[str] = AVERAGES) -> None:
        self.functions = tuple(functions)
        self.last = UNKNOWN
        """When the latest reading was taken; NaN before the first."""
        self.steps_done = 0
        """The number of the latest finished step."""
        self.sources: list[Source] = []
        self.names: dict[str, int] = {}
        self.columns: list[Column | None] = []
        """By source; None for one that is not recorded."""
        self.chosen: dict[str, bool] = {}
        """What somebody decided about recording, against the standard."""
        self.rates: list[float] = []
        """The latest value of each source."""
        self._raw: list[float] = []
        self._sums: list[float] = []
        self._known: list[float] = []
        self._layout: Sequence[Source] = ()
        self._places: list[int] | None = None
        self._counters: list[tuple[int, bool]] = []

    # --- readings

    def add(self, now: float, layout: Sequence[Source], readings: Sequence[float]) -> None:
        """Take the readings of one moment, one of each source of the layout; sources that are left out are unknown.

        The same layout object should be given as long as the sources are the same. A moment that is not after the
        last is ignored, unless the clock was set back by more than the heartbeat: then the history moves with it.
        """
        if layout is not self._layout:
            self._arrange(layout)
        places = self._places
        raw = list(readings) if places is None else [UNKNOWN if at < 0 else readings[at] for at in places]
        if self.last != self.last:
            self.last, self.steps_done = now, math.floor(now / STEP)
            self.rates = self._rates(raw, UNKNOWN)
            self._raw = raw
            return
        seconds = now - self.last
        if seconds <= 0:
            if seconds < -HEARTBEAT:
                self._move(now)
            return
        self.rates = self._rates(raw, seconds)
        self._raw = raw
        self._spend(now, self.rates if seconds <= HEARTBEAT else None)
        self.last = now

    def interrupt(self) -> None:
        """The counters are about to begin anew, as those of a machine that was started again."""
        self._raw = [UNKNOWN] * len(self.sources)

    def _rates(self, raw: list[float], seconds: float) -> list[float]:
        rates = raw.copy()
        for at, began_anew in self._counters:
            rates[at] = (raw[at] if began_anew else raw[at] - self._raw[at]) / seconds
        return [
            rate if source.minimum <= rate <= source.maximum and rate != math.inf
            else source.maximum if rate > source.maximum
            else UNKNOWN
            for rate, source in zip(rates, self.sources, strict=True)
        ]  # fmt: skip

    def _spend(self, now: float, rates: Sequence[float] | None) -> None:
        """Let time go on up to `now` at those rates, or with nothing known."""
        begin = self.last
        done = math.floor(now / STEP)
        if done > self.steps_done:
            end = (self.steps_done + 1) * STEP
            self._accumulate(rates, end - begin)
            half = STEP / 2
            values = [
                total / known if known >= half else UNKNOWN
                for total, known in zip(self._sums, self._known, strict=True)
            ]
            self._sums, self._known = [0.0] * len(values), [0.0] * len(values)
            self._finish_step(values)
            if rates is None:
                self._skip(done)
            else:
                while self.steps_done < done:
                    self._finish_step(rates)
            begin = done * STEP
        self._accumulate(rates, now - begin)

    def _accumulate(self, rates: Sequence[float] | None, seconds: float) -> None:
        if rates is None or seconds <= 0:
            return
        self._sums = [
            total + rate * seconds if rate == rate else total for total, rate in zip(self._sums, rates, strict=True)
        ]
        self._known = [
            known + seconds if rate == rate else known for known, rate in zip(self._known, rates, strict=True)
        ]

    def _move(self, now: float) -> None:
        """The clock was set back: let the newest rows be those that end now, and begin what was under way anew."""
        done = math.floor(now / STEP)
        for column in self.columns:
            if column is None:
                continue
            column.pending = [NOTHING] * len(RESOLUTIONS)
            for level, resolution in enumerate(RESOLUTIONS):
                column.turn(level, self.steps_done // resolution.steps, done // resolution.steps)
        self.last, self.steps_done = now, done
        self._sums, self._known = [0.0] * len(self.sources), [0.0] * len(self.sources)
        self._raw = [UNKNOWN] * len(self.sources)

    # --- rows

    def _finish_step(self, values: Sequence[float]) -> None:
        at = self.steps_done % RESOLUTIONS[0].rows
        for column, value in zip(self.columns, values, strict=True):
            if column is not None:
                column.rings[0][0][at] = value
        before = self.steps_done
        self.steps_done = before + 1
        if self.steps_done % RESOLUTIONS[1].steps == 0:
            self._roll(before, self.steps_done, filled=self.steps_done)

    def _skip(self, done: int) -> None:
        """Finish all steps up to that number with nothing known."""
        before = self.steps_done
        if done <= before:
            return
        self._roll(before, done, filled=before)
        self.steps_done = done
        for column in self.columns:
            if column is not None:
                column.blank(0, before + 1, done)

    def _roll(self, before: int, done: int, *, filled: int) -> None:
        """Finish the rows that end after step `before` and not after `done`; steps are in their ring up to `filled`."""
        minute = RESOLUTIONS[1].steps
        first = before // minute * minute
        if done // minute == before // minute:
            return
        begin = first % RESOLUTIONS[0].rows
        for column in self.columns:
            if column is not None:
                steps = column.rings[0][0][begin : begin + filled - first]
                column.pending[1] = digest(steps)
        for level in range(1, len(RESOLUTIONS)):
            row, last = before // RESOLUTIONS[level].steps, done // RESOLUTIONS[level].steps
            if row == last:
                return
            for column in self.columns:
                if column is not None:
                    column.finish_row(self.functions, level, row + 1, last)

    # --- sources

    def _arrange(self, layout: Sequence[Source]) -> None:
        """Find each source's place, and make one for those that are new."""
        known = {source.name for source in layout}
        if len(self.sources) > COLUMNS_MOST // 2:
            self._make_room(known)
        for source in layout:
            at = self.names.get(source.name)
            if at is None:
                self._append(source)
            else:
                self.sources[at] = source
        positions = {source.name: at for at, source in enumerate(layout)}
        places = [positions.get(source.name, -1) for source in self.sources]
        self._places = None if places == list(range(len(layout))) else places
        self._counters = [
            (at, source.kind is Kind.ABSOLUTE)
            for at, source in enumerate(self.sources)
            if source.kind is not Kind.GAUGE
        ]
        self._layout = layout

    def _append(self, source: Source) -> None:
        self.names[source.name] = len(self.sources)
        self.sources.append(source)
        recorded = self.chosen.get(source.name, source.standard)
        self.columns.append(Column(self.functions) if recorded and self._has_room() else None)
        self.rates.append(UNKNOWN)
        self._raw.append(UNKNOWN)
        self._sums.append(0.0)
        self._known.append(0.0)

    def _has_room(self) -> bool:
        return sum(column is not None for column in self.columns) < COLUMNS_MOST

    def _make_room(self, wanted: set[str]) -> None:
        """Let go of sources that are measured no more: those without history, and the oldest if that is not enough."""
        kept = [at for at, source in enumerate(self.sources) if source.name in wanted or not is_empty(self.columns[at])]
        superfluous = len(kept) - COLUMNS_MOST // 2
        if superfluous > 0:
            gone = {at for at in kept if self.sources[at].name not in wanted}
            gone = set(sorted(gone)[:superfluous])
            kept = [at for at in kept if at not in gone]
        self.sources = [self.sources[at] for at in kept]
        self.columns = [self.columns[at] for at in kept]
        self.rates = [self.rates[at] for at in kept]
        self._raw = [self._raw[at] for at in kept]
        self._sums = [self._sums[at] for at in kept]
        self._known = [self._known[at] for at in kept]
        self.names = {source.name: at for at, source in enumerate(self.sources)}
        self.chosen = {name: wish for name, wish in self.chosen.items() if name in self.names or name in wanted}

    def record(self, name: str) -> None:
        """Keep the history of a source from now on. Raises `KeyError` for one that is not there or has no room."""
        at = self.names[name]
        if self.columns[at] is None:
            if not self._has_room():
                raise KeyError(name)
            self.columns[at] = Column(self.functions)
        self.chosen[name] = True

    def forget(self, name: str) -> None:
        """Throw a source's history away and keep none from now on. Raises `KeyError`."""
        self.columns[self.names[name]] = None
        self.chosen[name] = False

    def measured(self) -> list[Measured]:
        """The sources that are measured now."""
        present = {source.name for source in self._layout}
        return [
            Measured(source, column is not None, rate)
            for source, column, rate in zip(self.sources, self.columns, self.rates, strict=True)
            if source.name in present
        ]

    def value(self, name: str) -> float:
        """The latest value of a source, NaN where it is unknown. Raises `KeyError`."""
        return self.rates[self.names[name]]

    # --- history

    def rows(self, at: int, level: int, function: str, first: int, last: int) -> array[float]:
        """The values of a recorded source in the rows numbered `first` to `last`; NaN where there are none.

        Raises `ValueError` for a function that is not kept.
        """
        column = self.columns[at]
        functions = self.functions if level else AVERAGES
        if column is None:
            return array("d", [UNKNOWN]) * (last - first + 1)
        newest = self.steps_done // RESOLUTIONS[level].steps
        return column.rows(level, functions.index(function), newest, first, last)

    def state(self, at: int) -> tuple[float, float, float]:
        """Of a source: the latest reading, and of the step under way the sum and the seconds that are unknown."""
        passed = max(0.0, self.last - self.steps_done * STEP)
        return self._raw[at], self._sums[at], max(0.0, passed - self._known[at])

    def under_way(self, at: int, level: int) -> Digest:
        """What is known of the steps of the row that is not finished yet."""
        column = self.columns[at]
        if column is None or not level:
            return NOTHING
        minute = RESOLUTIONS[1].steps
        first = self.steps_done // minute * minute
        begin = first % RESOLUTIONS[0].rows
        steps = digest(column.rings[0][0][begin : begin + self.steps_done - first])
        return steps if level == 1 else merged(column.pending[level], steps)

    # --- for files

    def inner(self) -> tuple[list[float], list[float], list[float]]:
        """By source: the latest readings, and the sums and known seconds of the step under way."""
        return self._raw, self._sums, self._known

    def restore(self, sources: list[Source], columns: list[Column | None], inner: Sequence[list[float]]) -> None:
        """Be what another archive was: its `inner`, sources and columns. `last` and `steps_done` were set already."""
        self.sources, self.columns = sources, columns
        self.names = {source.name: at for at, source in enumerate(sources)}
        self._raw, self._sums, self._known = inner
        self.rates = [UNKNOWN] * len(sources)
