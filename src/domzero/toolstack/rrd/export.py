"""Which rows of which archives answer a request for updates, put together as one table."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import AVERAGES, EXTREMES, RESOLUTIONS


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose history it is: `"vm"`, `"host"` or `"sr"`, and the uuid."""

    kind: str
    uuid: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.uuid}"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equally long history. `first` and `last` are row numbers; none when `last` is less than `first`."""

    step: int
    first: int
    last: int
    legend: Sequence[str]
    columns: Sequence[array[float]]

    @property
    def begin(self) -> int:
        """The time of the oldest row; that of the newest one there could be, where there is none."""
        return min(self.first, self.last) * self.step

    @property
    def end(self) -> int:
        """The time of the newest row."""
        return self.last * self.step

    def newest_first(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Time and values of each row."""
        times = range(self.end, (self.first - 1) * self.step, -self.step)
        if not self.columns:
            return ((time, ()) for time in times)
        return zip(times, zip(*(reversed(column) for column in self.columns), strict=True), strict=True)


def choose_level(now: float, start: float, interval: int) -> int:
    """The finest resolution whose rows are no shorter than asked for and which reaches back that far."""
    last = len(RESOLUTIONS) - 1
    for level, resolution in enumerate(RESOLUTIONS):
        if resolution.seconds >= interval and now - start <= resolution.seconds * resolution.rows:
            return level
    return last


def tabulate(
    owners: Iterable[tuple[Owner, Archive]], now: float, start: float, interval: int = 0, function: str | None = None
) -> Table:
    """The rows later than `start`, in one resolution, of every source that the owners record.

    `function` limits it to one consolidation function; an owner that does not keep it has no columns.
    """
    level = choose_level(now, start, interval)
    resolution = RESOLUTIONS[level]
    chosen = list(owners)
    last = max(
        (archive.steps_done // resolution.steps for _, archive in chosen), default=int(now) // resolution.seconds
    )
    first = max(int(max(start, 0.0) // resolution.seconds) + 1, last - resolution.rows + 1)
    legend, columns = [], []
    for owner, archive in chosen:
        for name in functions_at(archive, level):
            if function is not None and name != function:
                continue
            for at, column in enumerate(archive.columns):
                if column is not None:
                    legend.append(f"{name}:{owner}:{archive.sources[at].name}")
                    columns.append(archive.rows(at, level, name, first, last) if first <= last else array("d"))
    return Table(resolution.seconds, first, last, legend, columns)


def functions_at(archive: Archive, level: int) -> Sequence[str]:
    """What the rows of a resolution hold: a single step has but one value."""
    return archive.functions if level else AVERAGES


FUNCTIONS = (*EXTREMES, "LAST")
"""What may be asked for. Nothing is kept of the last: it is what rrdtool knows and XenServer's pages accept."""
