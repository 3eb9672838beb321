"""Steps: whatever fails, everything done before is undone, in reverse, and the first error is what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps, before_step


class House:
    """Four things that steps make and unmake; two of them take time."""

    NAMES = ("ground", "walls", "roof", "paint")

    def __init__(self) -> None:
        self.standing: list[str] = []
        self.history: list[str] = []

    def make(self, name: str) -> Callable[[], str]:
        def make() -> str:
            self.standing.append(name)
            self.history.append(f"+{name}")
            return name.upper()

        return make

    def unmake(self, name: str) -> Callable[[], object]:
        async def unmake() -> None:
            await asyncio.sleep(0)
            self.standing.remove(name)
            self.history.append(f"-{name}")

        return unmake

    async def build(self) -> list[str]:
        async with Steps() as steps:
            made = [await steps.do(name, self.make(name), self.unmake(name)) for name in self.NAMES]
            assert steps.done == self.NAMES
            await steps.do("party", lambda: None)
        return made


def failing_at(step: str) -> Callable[[str], None]:
    def check(name: str) -> None:
        if name == step:
            raise ApiError("VM_BAD_POWER_STATE", step)

    return check


async def test_success_keeps_everything() -> None:
    house = House()
    assert await house.build() == ["GROUND", "WALLS", "ROOF", "PAINT"]
    assert house.standing == list(House.NAMES)


@pytest.mark.parametrize("step", [*House.NAMES, "party"])
async def test_failure_at_any_step_leaves_nothing(step: str) -> None:
    house = House()
    token = before_step.set(failing_at(step))
    try:
        with pytest.raises(ApiError) as failure:
            await house.build()
    finally:
        before_step.reset(token)
    assert failure.value.description == ("VM_BAD_POWER_STATE", step)
    made = [entry[1:] for entry in house.history if entry.startswith("+")]
    assert house.standing == []
    assert house.history == [f"+{name}" for name in made] + [f"-{name}" for name in reversed(made)]


async def test_coroutine_steps_and_what_was_done_before() -> None:
    house = House()

    async def refuse() -> None:
        await asyncio.sleep(0)
        raise ApiError("HOST_OFFLINE")

    async def work() -> None:
        async with Steps() as steps:
            steps.on_failure("garden", house.unmake("garden"))
            await steps.do("refuse", refuse, house.unmake("never made"))

    house.make("garden")()
    with pytest.raises(ApiError, match="HOST_OFFLINE"):
        await work()
    assert house.standing == []


async def test_cancellation_undoes_and_cannot_stop_the_undoing() -> None:
    house = House()
    undoing, go_on = asyncio.Event(), asyncio.Event()

    async def slow_undo() -> None:
        undoing.set()
        await go_on.wait()
        house.history.append("-slow")

    async def work() -> None:
        async with Steps() as steps:
            await steps.do("ground", house.make("ground"), house.unmake("ground"))
            await steps.do("slow", lambda: None, slow_undo)
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    running.cancel()
    await undoing.wait()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert house.history == ["+ground", "-slow", "-ground"]


async def test_undo_that_fails_is_logged_and_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    def broken() -> None:
        raise ZeroDivisionError("broken undo")

    async def work() -> None:
        async with Steps() as steps:
            await steps.do("ground", house.make("ground"), house.unmake("ground"))
            await steps.do("bad", lambda: None, broken)
            raise ApiError("HOST_OFFLINE")

    with caplog.at_level(logging.ERROR), pytest.raises(ApiError, match="HOST_OFFLINE"):
        await work()
    assert house.standing == []
    assert "'bad'" in caplog.text
    assert "broken undo" in caplog.text
