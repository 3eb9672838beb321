"""The archive against a model that keeps every reading and computes each row from its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.toolstack.rrd.archive import COLUMNS_MOST, HEARTBEAT, Archive
from domzero.toolstack.rrd.columns import EXTREMES, RESOLUTIONS, STEP
from domzero.toolstack.rrd.sources import Kind, Source

NOON = 1_600_000_000 - 1_600_000_000 % 86_400 + 86_400 - 7_000
"""Less than two hours before a day's end, so that every kind of row ends in a test."""
GAUGE = Source("gauge", "", "", minimum=-1e9, maximum=50.0)
COUNTER = Source("counter", "", "", Kind.DERIVE)
ABSOLUTE = Source("absolute", "", "", Kind.ABSOLUTE)
LAYOUT = (GAUGE, COUNTER, ABSOLUTE)
ALONE = (COUNTER,)
"""Another layout: two sources are not measured for a while."""


@dataclass
class Model:
    """Intervals with the rates that were known in them."""

    readings: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    computed: dict[str, dict[int, float]] = field(default_factory=dict)

    def rate(self, number: int, source: Source) -> float:
        """The rate between a reading and the one before."""
        (before, older), (now, newer) = self.readings[number - 1], self.readings[number]
        value, seconds = newer.get(source.name, math.nan), now - before
        if seconds > HEARTBEAT:
            return math.nan
        if source.kind is Kind.DERIVE:
            value = (value - older.get(source.name, math.nan)) / seconds
        elif source.kind is Kind.ABSOLUTE:
            value /= seconds
        if value < source.minimum:
            return math.nan
        return min(value, source.maximum)

    def steps(self, source: Source) -> dict[int, float]:
        """Every finished step's value by its number."""
        if source.name not in self.computed:
            self.computed[source.name] = self._steps(source)
        return self.computed[source.name]

    def _steps(self, source: Source) -> dict[int, float]:
        begin, end = self.readings[0][0], self.readings[-1][0]
        rates = [self.rate(number, source) for number in range(1, len(self.readings))]
        values = {}
        at = 0
        for step in range(math.floor(begin / STEP) + 1, math.floor(end / STEP) + 1):
            total = known = 0.0
            while self.readings[at + 1][0] <= (step - 1) * STEP:
                at += 1
            for number in range(at, len(rates)):
                low = max(self.readings[number][0], (step - 1) * STEP)
                high = min(self.readings[number + 1][0], step * STEP)
                if low >= step * STEP:
                    break
                if high > low and not math.isnan(rates[number]):
                    total += rates[number] * (high - low)
                    known += high - low
            values[step] = total / known if known >= STEP / 2 else math.nan
        return values

    def rows(self, source: Source, level: int, function: str) -> dict[int, float]:
        """Every row that ended, by its number."""
        steps, each = self.steps(source), RESOLUTIONS[level].steps
        first, last = min(steps, default=1), max(steps, default=0)
        found = {}
        for row in range((first - 1) // each + 1, last // each + 1):
            members = [steps.get(step, math.nan) for step in range((row - 1) * each + 1, row * each + 1)]
            known = [value for value in members if not math.isnan(value)]
            if not known or 2 * len(known) < each:
                found[row] = math.nan
            else:
                found[row] = {"AVERAGE": sum(known) / len(known), "MIN": min(known), "MAX": max(known)}[function]
        return found


def compare(archive: Archive, model: Model) -> None:
    for source in LAYOUT:
        for level, resolution in enumerate(RESOLUTIONS):
            for function in EXTREMES if level else ("AVERAGE",):
                newest = archive.steps_done // resolution.steps
                first = newest - resolution.rows + 1
                wanted = model.rows(source, level, function)
                have = archive.rows(archive.names[source.name], level, function, first - 2, newest + 2)
                expected = [wanted.get(row, math.nan) for row in range(first, newest + 1)]
                expected = [math.nan] * 2 + expected + [math.nan] * 2
                assert list(have) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True), (source.name, level)


gaps = st.one_of(
    st.floats(0.5, 12.0),
    st.just(5.0),
    st.floats(200.0, 900.0),
    st.sampled_from([300.0, 300.5, 3_600.0, 20_000.0, 100_000.0]),
)
values = st.tuples(st.floats(-10, 100), st.floats(-5, 50), st.floats(0, 100), st.booleans())


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(gaps, values), min_size=1, max_size=40))
def test_rows_are_what_their_definition_says(readings: list[tuple[float, tuple[float, float, float, bool]]]) -> None:
    archive, model = Archive(EXTREMES), Model()
    now, counter = NOON + 1.25, 1000.0
    archive.add(now, LAYOUT, (1.0, counter, 1.0))
    model.readings.append((now, {"gauge": 1.0, "counter": counter, "absolute": 1.0}))
    for gap, (gauge, growth, absolute, alone) in readings:
        now, counter = now + gap, counter + growth
        names = {"gauge": gauge, "counter": counter, "absolute": absolute}
        if alone:
            archive.add(now, ALONE, (counter,))
            names = {"counter": counter}
        else:
            archive.add(now, LAYOUT, (gauge, counter, absolute))
        model.readings.append((now, names))
    compare(archive, model)


def fill(archive: Archive, begin: float, count: int, layout: Sequence[Source] = (GAUGE,)) -> None:
    for number in range(count):
        archive.add(begin + number * STEP, layout, [float(number)] * len(layout))


def test_two_hours_of_even_readings() -> None:
    archive = Archive(EXTREMES)
    fill(archive, NOON, 1500)
    newest = archive.steps_done
    assert list(archive.rows(0, 0, "AVERAGE", newest, newest)) == [50.0]
    hour = newest // 720
    assert archive.rows(0, 2, "MAX", hour, hour)[0] == 50.0


def test_a_source_of_its_own_is_recorded_when_asked_for() -> None:
    archive = Archive()
    spare = Source("spare", "", "", standard=False)
    archive.add(NOON, (GAUGE, spare), (1, 2))
    assert [(it.source.name, it.recorded, it.value) for it in archive.measured()] == [
        ("gauge", True, 1), ("spare", False, 2),
    ]  # fmt: skip
    archive.record("spare")
    archive.forget("gauge")
    archive.add(NOON + 5, (spare, GAUGE), (4, 3))
    assert {it.source.name: (it.recorded, it.value) for it in archive.measured()} == {
        "gauge": (False, 3), "spare": (True, 4),
    }  # fmt: skip
    newest = archive.steps_done
    assert list(archive.rows(archive.names["spare"], 0, "AVERAGE", newest, newest)) == [4]
    for unknown in (archive.record, archive.forget, archive.value):
        with pytest.raises(KeyError):
            unknown("nothing")


def test_a_moment_that_is_not_later_is_ignored() -> None:
    archive = Archive()
    fill(archive, NOON, 4)
    archive.add(NOON + 15, (GAUGE,), (40.0,))
    archive.add(NOON + 3, (GAUGE,), (40.0,))
    assert (archive.last, archive.value("gauge")) == (NOON + 15, 3.0)


def test_history_moves_with_a_clock_that_is_set_back() -> None:
    archive = Archive()
    fill(archive, NOON, 100)
    newest = archive.steps_done
    before = list(archive.rows(0, 0, "AVERAGE", newest - 50, newest))
    archive.add(NOON - 86_400 + 2, (GAUGE,), (1.0,))
    moved = archive.steps_done
    assert moved * STEP <= NOON - 86_400 + 2
    assert list(archive.rows(0, 0, "AVERAGE", moved - 50, moved)) == before
    archive.add(NOON - 86_400 + 7, (GAUGE,), (7.0,))
    archive.add(NOON - 86_400 + 12, (GAUGE,), (7.0,))
    assert archive.rows(0, 0, "AVERAGE", archive.steps_done, archive.steps_done)[0] == 7.0


def test_sources_that_come_and_go_do_not_pile_up() -> None:
    archive = Archive()
    for number in range(3 * COLUMNS_MOST // 100):
        layout = tuple(Source(f"source_{number}_{index}", "", "") for index in range(100))
        fill(archive, NOON + number * 20, 4, layout)
    assert len(archive.sources) <= COLUMNS_MOST
    assert all(archive.columns[archive.names[source.name]] is not None for source in layout)


def test_a_layout_with_more_sources_than_there_is_room_for() -> None:
    archive = Archive()
    layout = tuple(Source(f"source_{index}", "", "") for index in range(COLUMNS_MOST + 5))
    fill(archive, NOON, 2, layout)
    assert sum(column is not None for column in archive.columns) == COLUMNS_MOST
    with pytest.raises(KeyError):
        archive.record(layout[-1].name)
