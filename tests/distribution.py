"""Which tests of the whole suite run in one worker, one after the other: `script/test` with `--dist loadscope`.

A worker makes fixtures of its own, so that the tests of a file stay together, and those of one machine that takes long
to boot; and LVM has locks for the whole machine. (pytest-xdist 3.8's own groups, `--dist loadgroup`, change names of
tests in a way that pytest 9.2 does not see any more: it groups nothing, and does not say so.)
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    re.compile(r"(tests/talking)/"),
    re.compile(r"(tests/(?:[^:]*/)?test_lvm)[^:/]*\.py::"),
    re.compile(r"([^:]+)::"),
)
"""What of a test's name it shares with those of its group."""


def group(nodeid: str) -> str:
    """The name of a test's group."""
    found = (pattern.match(nodeid) for pattern in TOGETHER)
    return next((match[1] for match in found if match), nodeid)


class Distribution(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """By groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Distribution | None:
    """Who distributes tests."""
    return Distribution(config, log) if config.getvalue("dist") == "loadscope" else None
