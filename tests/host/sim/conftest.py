"""A simulator per test."""

from __future__ import annotations

import pytest

from tests.host.sim.bench import Bench


@pytest.fixture
async def bench() -> Bench:
    return await Bench().open()
