"""Exhaustive tests in two sizes: all cases in the whole suite, some of them in the fast part too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

SOME_OR_ALL = [pytest.param(17, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
"""For a test that goes through its cases by itself: it is to take each n-th."""


def each(number: int, cases: Iterable[Any]) -> list[Any]:
    """Cases for `parametrize`: the fast part runs each n-th of them. A tuple is several arguments."""
    return [
        case if position % number == 0 else pytest.param(*_arguments(case), marks=pytest.mark.slow)
        for position, case in enumerate(cases)
    ]


def _arguments(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
