"""Tasks: their objects, cancelling, destroying, what clients do with them, limits, and what a restart makes of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.task_reaping import COMPLETED_KEPT, PENDING_KEPT
from domzero.engine.tasks import RESTARTED, TASK_LIMIT
from domzero.idl.types import INT, NEVER, NULL_REF, VOID
from tests.engine.conftest import MakeToy
from tests.engine.toy_calls import Toy, ToyClock

NOT_FREE = ("OPERATION_NOT_ALLOWED", "The task cannot be cancelled.")


async def test_record_of_a_new_task(toy: Toy) -> None:
    session = await toy.root()
    task = await toy.call("task.create", session, "upload", "from here")
    record = dict(toy.task(task))
    assert record.pop("uuid")
    assert record == {
        "name_label": "upload",
        "name_description": "from here",
        "allowed_operations": ("cancel", "destroy"),
        "current_operations": {},
        "created": "20110930T00:00:00Z",
        "finished": NEVER,
        "status": "pending",
        "resident_on": toy.host,
        "progress": 0.0,
        "type": "<none/>",
        "result": "",
        "error_info": (),
        "other_config": {},
        "subtask_of": NULL_REF,
        "subtasks": (),
        "backtrace": "()",
    }
    assert await toy.call("task.get_by_name_label", session, "upload") == (task,)


async def test_cancelling_a_task(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.switch_on", session, lamp, True)
    await toy.turns()
    assert toy.task(task)["allowed_operations"] == ("cancel", "destroy")
    assert toy.task(task)["progress"] == 0.5
    await toy.call("task.cancel", session, task)
    assert toy.task(task)["status"] == "cancelling"
    assert dict(toy.task(task)["current_operations"]) == {task: "cancel"}
    await toy.until(lambda: toy.task(task)["status"] == "cancelled")
    record = toy.task(task)
    assert (record["error_info"], record["finished"]) == (("TASK_CANCELLED", task), "20110930T00:00:00Z")
    assert (record["allowed_operations"], record["current_operations"]) == (("destroy",), {})
    assert toy.database.get("lamp", lamp, "on") is False
    assert toy.database.get("lamp", lamp, "current_operations") == {}
    assert await toy.fails("task.cancel", session, task) == NOT_FREE


async def test_task_that_cannot_be_cancelled_says_so(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.repair", session, lamp)
    await toy.turns()
    assert toy.task(task)["allowed_operations"] == ("destroy",)
    assert await toy.fails("task.cancel", session, task) == NOT_FREE
    assert await toy.fails("task.cancel", session, "OpaqueRef:no") == ("HANDLE_INVALID", "task", "OpaqueRef:no")


async def test_task_of_a_synchronous_call_can_be_cancelled_too(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    call = asyncio.create_task(toy.fails("lamp.switch_on", session, lamp, True))
    await toy.turns()
    (task,) = toy.database.refs("task")
    await toy.call("task.cancel", session, task)
    assert await call == ("TASK_CANCELLED", task)
    assert toy.database.refs("task") == ()


async def test_destroying_a_running_task_takes_effect_when_it_ends(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.repair", session, lamp)
    await toy.turns()
    await toy.call("task.destroy", session, task)
    assert dict(toy.task(task)["current_operations"]) == {task: "destroy"}
    toy.pace.set()
    await toy.until(lambda: toy.database.find("task", task) is None)
    assert await toy.call("session.get_tasks", session, session) == ()
    assert toy.database.get("lamp", lamp, "current_operations") == {}


async def test_client_runs_its_own_task(toy: Toy) -> None:
    session = await toy.root()
    task = await toy.call("task.create", session, "mine", "")
    await toy.call("task.set_progress", session, task, 0.25)
    await toy.call("task.set_progress", session, task, 7)
    assert toy.task(task)["progress"] == 1.0
    await toy.call("task.set_result", session, task, "<value>x</value>")
    await toy.call("task.set_error_info", session, task, ["CODE", "why"])
    await toy.call("task.set_status", session, task, "failure")
    record = toy.task(task)
    assert (record["status"], record["result"], record["error_info"]) == (
        "failure",
        "<value>x</value>",
        ("CODE", "why"),
    )
    assert record["finished"] != NEVER
    await toy.call("task.destroy", session, task)
    assert toy.database.refs("task") == ()


async def test_the_outcome_may_follow_the_end(toy: Toy) -> None:
    """Clients complete a task's outcome after its status (xapi-project/xen-api, pull request 4543)."""
    session = await toy.root()
    task = await toy.call("task.create", session, "mine", "")
    await toy.call("task.set_status", session, task, "failure")
    assert toy.task(task)["allowed_operations"] == ("destroy",)
    await toy.call("task.set_error_info", session, task, ["CODE", "why"])
    await toy.call("task.set_result", session, task, "<value>x</value>")
    await toy.call("task.set_progress", session, task, 1.0)
    record = toy.task(task)
    assert (record["status"], record["result"], record["error_info"], record["progress"]) == (
        "failure",
        "<value>x</value>",
        ("CODE", "why"),
        1.0,
    )


@pytest.mark.parametrize("end", ["success", "failure", "cancelled"])
async def test_what_has_ended_does_not_come_back(toy: Toy, end: str) -> None:
    session = await toy.root()
    task = await toy.call("task.create", session, "mine", "")
    await toy.call("task.set_status", session, task, end)
    before = dict(toy.task(task))
    await toy.clock.advance(60)
    for other in {"pending", "cancelling", "success", "failure", "cancelled"} - {end}:
        description = ("OPERATION_NOT_ALLOWED", f"The task's status is {end} and cannot become {other}.")
        assert await toy.fails("task.set_status", session, task, other) == description
    await toy.call("task.set_status", session, task, end)
    assert dict(toy.task(task)) == before
    assert await toy.fails("task.cancel", session, task) == NOT_FREE


async def test_a_wish_to_cancel_is_not_taken_back(toy: Toy) -> None:
    session = await toy.root()
    task = await toy.call("task.create", session, "mine", "")
    await toy.call("task.set_status", session, task, "pending")
    await toy.call("task.cancel", session, task)
    description = ("OPERATION_NOT_ALLOWED", "The task's status is cancelling and cannot become pending.")
    assert await toy.fails("task.set_status", session, task, "pending") == description
    await toy.call("task.set_status", session, task, "cancelled")
    assert toy.task(task)["current_operations"] == {}


@pytest.mark.parametrize(
    ("method", "value"),
    [("set_progress", 0.5), ("set_result", "x"), ("set_error_info", ["x"]), ("set_status", "pending")],
)
async def test_clients_do_not_touch_what_the_server_has_ended(toy: Toy, method: str, value: Any) -> None:
    session, lamp, tasks = await toy.root(), toy.lamp(), toy.engine.tasks
    toy.pace.set()
    ran = await toy.call("Async.lamp.repair", session, lamp)
    await toy.until(lambda: toy.task(ran)["status"] == "success")
    completed = await toy.call("task.create", session, "transfer", "")
    cancelled = await toy.call("task.create", session, "transfer", "")
    await tasks.carry_out(tasks.adopt(completed, None), asyncio.sleep(0), VOID)
    await toy.call("task.cancel", session, cancelled)
    with pytest.raises(ApiError):
        tasks.adopt(cancelled, None)
    for task in (ran, completed, cancelled):
        before = dict(toy.task(task))
        description = ("OPERATION_NOT_ALLOWED", "The server runs this task.")
        assert await toy.fails(f"task.{method}", session, task, value) == description
        assert dict(toy.task(task)) == before


@pytest.mark.parametrize(
    ("method", "value"),
    [("set_progress", 0.5), ("set_result", "x"), ("set_error_info", ["x"]), ("set_status", "success")],
)
async def test_clients_do_not_touch_what_the_server_runs(toy: Toy, method: str, value: Any) -> None:
    session, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.repair", session, lamp)
    description = ("OPERATION_NOT_ALLOWED", "The server runs this task.")
    assert await toy.fails(f"task.{method}", session, task, value) == description


async def test_everybody_deals_with_own_tasks_and_operators_with_all(toy: Toy) -> None:
    reader, other = await toy.session_of("read-only"), await toy.session_of("vm-power-admin")
    again = await toy.session_of("read-only")
    operator = await toy.session_of("pool-operator")
    first, second, third = [await toy.call("task.create", reader, str(number), "") for number in range(3)]
    denied = ("RBAC_PERMISSION_DENIED", "task.destroy", "The task belongs to another account.")
    assert await toy.fails("task.destroy", other, first) == denied
    assert (await toy.fails("task.cancel", other, first))[0] == "RBAC_PERMISSION_DENIED"
    assert (await toy.fails("task.set_status", other, first, "success"))[0] == "RBAC_PERMISSION_DENIED"
    await toy.call("task.destroy", reader, first)
    await toy.call("task.destroy", again, second)
    await toy.call("task.cancel", operator, third)
    assert await toy.fails("task.destroy", other, "OpaqueRef:no") == ("HANDLE_INVALID", "task", "OpaqueRef:no")


async def test_cancelled_client_task_stops_the_work_that_would_complete_it(toy: Toy) -> None:
    session, tasks = await toy.root(), toy.engine.tasks
    task = await toy.call("task.create", session, "transfer", "")
    await toy.call("task.cancel", session, task)
    with pytest.raises(ApiError) as failure:
        tasks.adopt(task, None)
    assert failure.value.description == ("TASK_CANCELLED", task)
    assert toy.task(task)["status"] == "cancelled"
    await toy.call("task.destroy", session, task)


async def test_work_completes_the_task_that_a_client_made(toy: Toy) -> None:
    session, tasks = await toy.root(), toy.engine.tasks
    task = await toy.call("task.create", session, "transfer", "")
    handle = tasks.adopt(task, None)
    with pytest.raises(ApiError, match="OPERATION_NOT_ALLOWED"):
        tasks.adopt(task, None)

    async def seven() -> int:
        handle.set_progress(0.5)
        assert toy.task(task)["progress"] == 0.5
        return 7

    assert await tasks.carry_out(handle, seven(), INT) == 7
    assert (toy.task(task)["status"], toy.task(task)["result"]) == ("success", "<value>7</value>")
    with pytest.raises(ApiError, match="OPERATION_NOT_ALLOWED"):
        tasks.adopt(task, None)


async def test_failing_work_fails_its_task_and_its_caller(toy: Toy) -> None:
    tasks = toy.engine.tasks

    async def refuse() -> None:
        raise ApiError("HOST_OFFLINE", "x")

    async def break_down() -> None:
        raise ZeroDivisionError("really")

    for work, description in (
        (refuse(), ("HOST_OFFLINE", "x")),
        (break_down(), ("INTERNAL_ERROR", "ZeroDivisionError: really")),
    ):
        handle = tasks.handle("work", None)
        with pytest.raises(ApiError) as failure:
            await tasks.carry_out(handle, work, VOID)
        assert failure.value.description == description
        assert (toy.task(handle.ref)["status"], toy.task(handle.ref)["error_info"]) == ("failure", description)


async def test_result_that_cannot_be_encoded_is_a_failure(toy: Toy) -> None:
    tasks = toy.engine.tasks
    handle = tasks.handle("work", None)

    async def nonsense() -> object:
        return object()

    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await tasks.carry_out(handle, nonsense(), INT)
    assert toy.task(handle.ref)["status"] == "failure"


async def test_subtasks_belong_to_their_task_and_end_with_it(toy: Toy) -> None:
    tasks = toy.engine.tasks
    parent = tasks.handle("parent", None)
    child = parent.subtask("child")

    async def forever() -> None:
        with child.cancellable():
            await asyncio.Event().wait()

    async def work() -> None:
        with parent.cancellable():
            await tasks.carry_out(child, forever(), VOID)

    tasks.start(parent, work(), VOID)
    await toy.turns()
    assert toy.task(parent.ref)["subtasks"] == (child.ref,)
    assert toy.task(child.ref)["subtask_of"] == parent.ref
    tasks.cancel(parent.ref)
    await toy.until(lambda: toy.task(parent.ref)["status"] == "cancelled")
    assert toy.task(child.ref)["status"] == "cancelled"


async def test_lazy_task_is_stored_on_first_use_only(toy: Toy) -> None:
    context = toy.context("background")
    context.task.set_progress(0.5)
    with context.task.cancellable():
        assert not context.task.is_cancellable
    assert toy.database.refs("task") == ()
    assert context.task.ref == context.task.ref
    assert len(toy.database.refs("task")) == 1
    toy.engine.tasks.release(context.task)
    assert toy.database.refs("task") == ()


async def test_finished_tasks_are_kept_for_a_while(toy: Toy) -> None:
    session = await toy.root()
    done, pending = [await toy.call("task.create", session, str(number), "") for number in range(2)]
    await toy.call("task.set_status", session, done, "success")
    await toy.clock.advance(COMPLETED_KEPT.total_seconds() - 1)
    toy.engine.tasks.sweep()
    assert toy.database.refs("task") == (done, pending)
    await toy.clock.advance(2)
    toy.engine.tasks.sweep()
    assert toy.database.refs("task") == (pending,)
    assert await toy.call("session.get_tasks", session, session) == (pending,)


async def test_abandoned_tasks_go_but_running_ones_stay(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.call("task.create", session, "abandoned", "")
    running = await toy.call("Async.lamp.repair", session, lamp)
    await toy.clock.advance(PENDING_KEPT.total_seconds() + 1)
    toy.engine.tasks.sweep()
    assert toy.database.refs("task") == (running,)


async def test_oldest_finished_tasks_go_beyond_the_limit(toy: Toy) -> None:
    session = await toy.root()
    pending = await toy.call("task.create", session, "pending", "")
    tasks = []
    for number in range(TASK_LIMIT - 2):
        tasks.append(await toy.call("task.create", session, str(number), ""))
    for task in tasks:
        await toy.clock.advance(1)
        await toy.call("task.set_status", session, task, "success")
    for _ in range(5):
        await toy.call("task.create", session, "late", "")
    toy.engine.tasks.sweep()
    left = toy.database.refs("task")
    assert len(left) == TASK_LIMIT
    assert left[:3] == (pending, tasks[4], tasks[5])


async def test_too_many_pending_tasks_are_refused(toy: Toy) -> None:
    session = await toy.root()
    tasks = toy.engine.tasks
    for number in range(tasks.pending_limit):
        tasks.store(str(number), "", None)
    assert await toy.fails("task.create", session, "one more", "") == ("TOO_MANY_PENDING_TASKS",)
    assert await toy.fails("Async.lamp.repair", session, toy.lamp()) == ("TOO_MANY_PENDING_TASKS",)


async def test_restart_fails_unfinished_tasks_and_frees_objects(start: MakeToy, tmp_path: Path) -> None:
    clock = ToyClock()
    toy = await start(clock=clock, path=tmp_path / "state.db")
    session, lamp = await toy.session_of("vm-admin"), toy.lamp()
    task = await toy.call("Async.lamp.repair", session, lamp)
    done = await toy.call("task.create", session, "done", "")
    await toy.call("task.set_status", session, done, "success")
    await toy.turns()
    await toy.database.durable()
    assert toy.database.get("lamp", lamp, "current_operations") != {}
    # A crash: nothing is wound down, the file is as the last answer left it.
    await toy.database.close()
    toy.stopped = True
    again = await start(clock=clock, path=tmp_path / "state.db")
    assert (again.task(task)["status"], again.task(task)["error_info"]) == ("failure", RESTARTED)
    assert again.task(task)["finished"] != NEVER
    assert again.database.get("lamp", lamp, "current_operations") == {}
    assert again.task(done)["status"] == "success"
    other = await again.session_of("vm-operator")
    assert (await again.fails("task.destroy", other, task))[0] == "RBAC_PERMISSION_DENIED"
    await again.call("task.destroy", session, task)
    with contextlib.suppress(asyncio.CancelledError, ApiError):
        await toy.engine.tasks.stop(0)
    toy.passwords.close()


async def test_stopping_lets_work_end_and_cancels_the_rest(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.repair", session, lamp)
    await toy.turns()
    stopping = asyncio.create_task(toy.engine.tasks.stop(5))
    await toy.clock.until_asleep()
    toy.pace.set()
    await stopping
    assert toy.task(task)["status"] == "success"
    toy.pace.clear()
    stuck = await toy.call("Async.lamp.repair", session, lamp)
    stopping = asyncio.create_task(toy.engine.tasks.stop(5))
    await toy.clock.until_asleep()
    await toy.clock.advance(5)
    await stopping
    assert toy.task(stuck)["status"] == "pending"
    assert toy.database.get("lamp", lamp, "current_operations") == {}
