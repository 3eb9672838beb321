"""What a measurement is worth, and how it is written down: spreads, targets, rows, the table."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

TITLE = "# Measured"
HEAD = "| ratio | target | met | what | domzero | beside it |\n|---:|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, with the 10th, 90th and 99th percentile, and how many values there were."""

    median: float
    low: float
    high: float
    p99: float
    count: int

    def text(self, unit: str, scale: float = 1.0) -> str:
        """`12.3 ms [11.9–14.0]`; values are multiplied by `scale` first."""
        median, low, high = (number(value * scale) for value in (self.median, self.low, self.high))
        return f"{median} {unit} [{low}–{high}]" if self.count > 1 else f"{median} {unit}"


def spread(values: Sequence[float]) -> Spread:
    """Percentiles of at least one value."""
    ordered = sorted(values)

    def at(fraction: float) -> float:
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]

    return Spread(statistics.median(ordered), at(0.1), at(0.9), at(0.99), len(ordered))


def number(value: float) -> str:
    """Three significant digits, thousands with a thin space."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio has to be. `least` and `most` are inclusive."""

    least: float | None = None
    most: float | None = None

    def met(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return (self.least is None or ratio >= self.least) and (self.most is None or ratio <= self.most)

    def __str__(self) -> str:
        bounds = (("≥", self.least), ("≤", self.most))
        return " ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: a ratio of ours to something beside it (a peer, or a limit), judged by a target if there is one.

    `ratio` is None where the peer could not be measured; `beside` then says why.
    """

    what: str
    ratio: float | None
    ours: str
    beside: str
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """None where nothing was asked, or nothing could be measured."""
        return None if self.target is None or self.ratio is None else self.target.met(self.ratio)

    def markdown(self) -> str:
        """The row of the table."""
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        ratio = "–" if self.ratio is None else f"**{number(self.ratio)}**"
        target = "" if self.target is None else str(self.target)
        return f"| {ratio} | {target} | {met} | {self.what} | {self.ours} | {self.beside} |"


@dataclass(slots=True)
class Section:
    """The rows of one subject. `notes` say how it was measured; `calibration` how the machine was before and after."""

    title: str
    notes: str
    rows: list[Row] = field(default_factory=list)
    calibration: tuple[str, ...] = ()

    def add(self, row: Row) -> None:
        """Keep a row, and show it: a run takes minutes."""
        self.rows.append(row)
        print(row.markdown(), flush=True)

    def markdown(self) -> str:
        """The subject's part of the results."""
        lines = [f"## {self.title}", "", self.notes, "", HEAD, *(row.markdown() for row in self.rows)]
        return "\n".join([*lines, "", f"Calibration: {'; '.join(self.calibration)}.", ""])


def calibration() -> str:
    """How fast this machine is just now: a pure Python loop, a hash over memory, and who else is busy."""
    loops = [_timed(_loop) for _ in range(5)]
    block = bytes(8 << 20)
    hashing = min(_timed(lambda: hashlib.sha256(block).digest()) for _ in range(3))
    speed = len(block) / hashing / 1e9
    return f"loop {statistics.median(loops) * 1e3:.1f} ms, sha256 {speed:.1f} GB/s, load {os.getloadavg()[0]:.1f}"


def results(sections: Sequence[Section], machine: str) -> str:
    """The whole document."""
    judged = [row for section in sections for row in section.rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    verdict = f"{len(judged) - len(missed)} of {len(judged)} targets met."
    if missed:
        verdict += " Missed:\n\n" + "\n".join(
            f"* {row.what}: {number(row.ratio or 0)}, target {row.target}" for row in missed
        )
    about = (
        "Everything in one table was measured side by side in one run, ours and the other in turn: read the ratios "
        "first, absolute figures depend on the machine and its neighbours. A figure is a median, with the 10th and "
        "90th percentile in brackets. `script/bench` writes this file."
    )
    return "\n\n".join([TITLE, about, machine, verdict, *(section.markdown() for section in sections)])


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _loop() -> int:
    total = 0
    for value in range(300_000):
        total += value
    return total
