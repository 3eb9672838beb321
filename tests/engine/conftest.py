"""Engines over the toy model of calls, and what puts them away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.toy_calls import Toy, make_toy

MakeToy = Callable[..., Awaitable[Toy]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[MakeToy]:
    """Starts engines; those not stopped before are stopped at the end."""
    toys: list[Toy] = []

    async def start_one(**settings: Any) -> Toy:
        toys.append(await make_toy(tmp_path, **settings))
        return toys[-1]

    yield start_one
    for toy in toys:
        await toy.stop()


@pytest.fixture
async def toy(start: MakeToy) -> Toy:
    """One engine, kept in memory."""
    return await start()
