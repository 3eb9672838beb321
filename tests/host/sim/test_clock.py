"""The clock that is moved by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from domzero.host.clock import Clock, ManualClock, SystemClock


async def test_sleepers_wake_in_order_and_each_at_its_own_moment() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    tasks = [asyncio.ensure_future(sleeper(name, seconds)) for name, seconds in (("c", 3), ("a", 1), ("b", 1))]
    await clock.advance(2.5)
    assert woken == [("a", 1), ("b", 1)]
    assert clock.monotonic() == 2.5
    await clock.advance(0.5)
    assert woken[-1] == ("c", 3)
    await asyncio.gather(*tasks)


async def test_a_task_that_sleeps_again_wakes_again_within_the_same_advance() -> None:
    clock = ManualClock()
    moments: list[float] = []

    async def periodic() -> None:
        while True:
            await clock.sleep(1)
            moments.append(clock.monotonic())

    task = asyncio.ensure_future(periodic())
    await clock.advance(4.5)
    task.cancel()
    assert moments == [1, 2, 3, 4]


async def test_a_step_wakes_one_sleeper_and_a_cancelled_one_is_passed_over() -> None:
    clock = ManualClock()
    tasks = [asyncio.ensure_future(clock.sleep(seconds)) for seconds in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await clock.step()
    assert clock.monotonic() == 2
    assert tasks[1].done()
    assert not tasks[2].done()
    assert await clock.step()
    assert not await clock.step()
    assert clock.next_due() is None


async def test_wall_time_follows_and_time_does_not_go_back() -> None:
    start = datetime(2012, 1, 1, tzinfo=UTC)
    clock = ManualClock(start)
    await clock.advance(60)
    assert clock.now() == start + timedelta(minutes=1)
    with pytest.raises(ValueError, match="back"):
        await clock.advance(-1)


async def test_the_systems_clock_keeps_time() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.01)
    await clock.sleep(-1)
    assert clock.monotonic() - before >= 0.01
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
