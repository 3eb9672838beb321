"""A clock that runs by itself and can be set forward."""

from __future__ import annotations

import asyncio
import math

import pytest

from domzero.host.clock import AdjustableClock

DAY = 86_400.0


async def test_sleepers_wake_when_the_clock_is_set_past_their_time() -> None:
    clock = AdjustableClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(sleeper("a day", DAY))
        hour = group.create_task(sleeper("an hour", 3600))
        await asyncio.sleep(0)
        clock.advance(3600)
        await hour
        assert woken == ["an hour"]
        clock.advance(DAY - 3600)
    assert woken == ["an hour", "a day"]


async def test_wall_time_moves_along_and_the_clock_runs_by_itself() -> None:
    clock = AdjustableClock()
    before = clock.now()
    clock.advance(DAY)
    assert DAY <= (clock.now() - before).total_seconds() < DAY + 20
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.01


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan, 1e18])
def test_time_goes_neither_back_nor_to_the_end_of_days(seconds: float) -> None:
    with pytest.raises(ValueError, match="time does not go"):
        AdjustableClock().advance(seconds)
