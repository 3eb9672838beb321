"""Gates: who may start, who waits for whom and how long, and what the two operation fields show meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from domzero.engine.admission import LITTLE_PATIENCE, PATIENCE, Gate
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from tests.engine.toy_calls import Toy


class Operation:
    """An operation that holds its object until it is told to end."""

    def __init__(self, toy: Toy, lamp: Ref, name: str, context: Context | None = None, fail_quickly: bool = False):
        self.context = context or toy.context(name)
        self.entered = asyncio.Event()
        self._end = asyncio.Event()
        self._toy = toy
        self.work = asyncio.create_task(self._run(toy.gate, lamp, name, fail_quickly))

    async def _run(self, gate: Gate, lamp: Ref, name: str, fail_quickly: bool) -> None:
        try:
            async with gate.operation(self.context, lamp, name, fail_quickly=fail_quickly):
                self.entered.set()
                await self._end.wait()
        finally:
            self._toy.engine.tasks.release(self.context.task)

    async def end(self) -> None:
        self._end.set()
        await self.work

    async def error(self) -> tuple[str, ...]:
        with pytest.raises(ApiError) as failure:
            await self.work
        return failure.value.description


async def test_operation_shows_in_both_fields(toy: Toy) -> None:
    lamp = toy.lamp()
    toy.gate.refresh(lamp)
    assert toy.database.get("lamp", lamp, "allowed_operations") == ("on", "repair")
    operation = Operation(toy, lamp, "repair")
    await operation.entered.wait()
    record = toy.database.record("lamp", lamp)
    assert dict(record["current_operations"]) == {operation.context.task.ref: "repair"}
    assert record["allowed_operations"] == ()
    await operation.end()
    record = toy.database.record("lamp", lamp)
    assert (record["current_operations"], record["allowed_operations"]) == ({}, ("on", "repair"))


async def test_others_hear_of_beginning_and_end(toy: Toy) -> None:
    """When they do, the object's own fields say so already."""
    lamp, heard = toy.lamp(), []

    def hear(ref: Ref, operation: str) -> None:
        heard.append((ref, operation, tuple(toy.database.get("lamp", ref, "current_operations").values())))

    gate = Gate(toy.database, "lamp", lambda database, ref, operation: None, ("repair",), toy.clock, on_change=hear)
    context = toy.context("repair")
    async with gate.operation(context, lamp, "repair"):
        assert heard == [(lamp, "repair", ("repair",))]
    assert heard[1:] == [(lamp, "repair", ())]


async def test_refusal_that_waiting_cannot_help_comes_at_once(toy: Toy) -> None:
    lamp = toy.lamp(on=True)
    assert await Operation(toy, lamp, "on").error() == ("OPERATION_NOT_ALLOWED", "It is on.")
    assert await Operation(toy, "OpaqueRef:no", "on").error() == ("HANDLE_INVALID", "lamp", "OpaqueRef:no")
    assert toy.database.refs("task") == ()
    with pytest.raises(ApiError, match="OPERATION_NOT_ALLOWED"):
        toy.gate.assert_allowed(lamp, "on")
    toy.gate.assert_allowed(lamp, "repair")


async def test_conflicting_operations_take_turns_in_order(toy: Toy) -> None:
    lamp = toy.lamp()
    operations = [Operation(toy, lamp, "repair") for _ in range(4)]
    for number, operation in enumerate(operations):
        await operation.entered.wait()
        await toy.turns()
        assert [one.entered.is_set() for one in operations] == [index <= number for index in range(4)]
        await operation.end()


@pytest.mark.parametrize(("fail_quickly", "seconds"), [(False, PATIENCE), (True, LITTLE_PATIENCE)])
async def test_waiting_ends_with_patience(toy: Toy, fail_quickly: bool, seconds: float) -> None:
    lamp = toy.lamp()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    waiter = Operation(toy, lamp, "repair", fail_quickly=fail_quickly)
    await toy.clock.advance(seconds - 0.1)
    assert not waiter.work.done()
    await toy.clock.advance(0.2)
    assert await waiter.error() == ("OTHER_OPERATION_IN_PROGRESS", "lamp", lamp)
    assert toy.clock.next_due() is None
    await holder.end()


async def test_state_that_changes_meanwhile_refuses_waiters(toy: Toy) -> None:
    lamp = toy.lamp()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    hopeless, patient = Operation(toy, lamp, "on"), Operation(toy, lamp, "repair")
    await toy.turns()
    with toy.database.transaction() as transaction:
        transaction.update("lamp", lamp, on=True)
    toy.gate.refresh(lamp)
    assert await hopeless.error() == ("OPERATION_NOT_ALLOWED", "It is on.")
    assert not patient.entered.is_set()
    await holder.end()
    await patient.entered.wait()
    await patient.end()


async def test_object_that_goes_refuses_waiters(toy: Toy) -> None:
    lamp = toy.lamp()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    waiter = Operation(toy, lamp, "repair")
    await toy.turns()
    with toy.database.transaction() as transaction:
        transaction.destroy("lamp", lamp)
    await holder.end()
    assert await waiter.error() == ("HANDLE_INVALID", "lamp", lamp)
    toy.gate.refresh(lamp)


async def test_waiter_that_gives_up_lets_the_next_one_through(toy: Toy) -> None:
    lamp = toy.lamp()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    first, second = Operation(toy, lamp, "repair"), Operation(toy, lamp, "repair")
    await toy.turns()
    first.work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.work
    await holder.end()
    await second.entered.wait()
    await second.end()
    assert toy.database.get("lamp", lamp, "current_operations") == {}


async def test_operation_cancelled_as_its_turn_comes_holds_nothing(toy: Toy) -> None:
    lamp = toy.lamp()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    waiter, next_ = Operation(toy, lamp, "repair"), Operation(toy, lamp, "repair")
    await toy.turns()

    # The turn is granted in the very moment in which the waiter is cancelled.
    await holder.end()
    waiter.work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter.work
    await next_.entered.wait()
    await next_.end()
    assert toy.database.get("lamp", lamp, "current_operations") == {}


async def test_operation_that_fails_leaves_the_object(toy: Toy) -> None:
    lamp, context = toy.lamp(), toy.context()
    with pytest.raises(ZeroDivisionError):
        async with toy.gate.operation(context, lamp, "repair"):
            raise ZeroDivisionError
    assert toy.database.get("lamp", lamp, "current_operations") == {}


async def test_overtaking_operation_starts_over_others_and_stops_them(toy: Toy) -> None:
    lamp, session = toy.lamp(), await toy.root()
    call = await toy.call("Async.lamp.switch_on", session, lamp, True)
    await toy.turns()
    waiting = Operation(toy, lamp, "repair")
    await toy.turns()
    context = toy.context()
    async with toy.gate.operation(context, lamp, "smash"):
        assert dict(toy.database.get("lamp", lamp, "current_operations")) == {call: "on", context.task.ref: "smash"}
        await toy.gate.cancel_others(context, lamp)
        assert toy.task(call)["status"] in ("cancelling", "cancelled")
        assert dict(toy.database.get("lamp", lamp, "current_operations")) == {context.task.ref: "smash"}
    await toy.until(lambda: toy.task(call)["status"] == "cancelled")
    await waiting.entered.wait()
    await waiting.end()


async def test_operation_that_cannot_be_stopped_is_not_waited_for_long(toy: Toy) -> None:
    lamp, context = toy.lamp(), toy.context()
    holder = Operation(toy, lamp, "repair")
    await holder.entered.wait()
    async with toy.gate.operation(context, lamp, "smash"):
        stopping = asyncio.create_task(toy.gate.cancel_others(context, lamp))
        await toy.clock.advance(LITTLE_PATIENCE - 0.1)
        assert not stopping.done()
        await toy.clock.advance(0.2)
        await stopping
    await holder.end()


async def test_operation_inside_another_of_the_same_task_does_not_queue(toy: Toy) -> None:
    def allow(database: Database, ref: Ref, operation: str) -> ApiError | None:
        running = set(database.get("lamp", ref, "current_operations").values())
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "lamp", ref) if operation == "on" and running else None

    lamp, context = toy.lamp(), toy.context()
    toy.gate = Gate(toy.database, "lamp", allow, ("on", "repair"), toy.clock)
    async with toy.gate.operation(context, lamp, "repair"):
        waiting = Operation(toy, lamp, "on")
        await toy.turns()
        behind = Operation(toy, lamp, "repair")
        await toy.turns()
        assert not behind.entered.is_set()
        async with toy.gate.operation(context, lamp, "repair"):
            assert dict(toy.database.get("lamp", lamp, "current_operations")) == {context.task.ref: "repair"}
        assert dict(toy.database.get("lamp", lamp, "current_operations")) == {context.task.ref: "repair"}
    await waiting.entered.wait()
    await waiting.end()
    await behind.entered.wait()
    await behind.end()


@pytest.mark.parametrize("order", [lambda numbers: numbers, reversed], ids=["same", "reversed"])
async def test_objects_do_not_hinder_each_other(toy: Toy, order: Callable[[list[int]], list[int]]) -> None:
    lamps = [toy.lamp() for _ in range(3)]
    operations = [Operation(toy, lamp, "repair") for lamp in lamps]
    for operation in operations:
        await operation.entered.wait()
    for number in order([0, 1, 2]):
        await operations[number].end()
    assert all(toy.database.get("lamp", lamp, "current_operations") == {} for lamp in lamps)
