"""Tells at the end of a run which test files took the most processor time, their ended child processes included.

Unlike the durations that pytest tells, these figures mean something on a busy machine too. Nothing fails because of
them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator

import pytest

SHOWN = 15
"""Files, the most expensive first."""
PROPERTY = "processor seconds"
"""Of reports: what went by since the report before; a shared fixture counts for the test that it was made for."""

_spent = 0.0


def processor_seconds() -> float:
    """What this process and its ended children have used so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_collection_finish() -> None:
    global _spent
    _spent = processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    global _spent
    report = yield
    before, _spent = _spent, processor_seconds()
    report.user_properties.append((PROPERTY, _spent - before))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spent: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                figure = dict(report.user_properties).get(PROPERTY, 0.0)
                assert isinstance(figure, float)
                spent[report.nodeid.partition("::")[0]] += figure
    if spent:
        terminalreporter.section(f"processor time: {sum(spent.values()):.0f} s without collection")
    for file in sorted(spent, key=spent.__getitem__, reverse=True)[:SHOWN]:
        terminalreporter.line(f"{spent[file]:.2f}s {file}")
