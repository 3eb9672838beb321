"""Calls from name and parameters to answer: the order of checks, every documented error, tasks of `Async` calls."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from domzero.engine.calls import LOCAL, Answer
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, STRING, STRING_SET, RefTo
from tests.engine.toy_calls import NOT_IMPLEMENTED, PASSWORD, STRANGER, Toy


async def test_login_getter_setter_and_logout(toy: Toy) -> None:
    session = await toy.call("session.login_with_password", "root", PASSWORD, "1.3", "tests")
    lamp = toy.lamp()
    assert await toy.call("lamp.get_name_label", session, lamp) == "lamp"
    assert await toy.call("lamp.set_name_label", session, lamp, "desk") is None
    assert await toy.call("lamp.get_name_label", session, lamp) == "desk"
    assert await toy.call("lamp.get_by_name_label", session, "desk") == (lamp,)
    assert (await toy.call("lamp.get_record", session, lamp))["watts"] == 40
    assert await toy.call("lamp.get_all", session) == (lamp,)
    assert await toy.call("session.logout", session) is None
    assert await toy.fails("lamp.get_name_label", session, lamp) == ("SESSION_INVALID", session)


async def test_getters_answer_without_waiting(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    for method in ("lamp.get_watts", "lamp_get_watts"):
        answer = toy.dispatcher.call(method, [session, lamp], STRANGER)
        assert isinstance(answer, Answer)
        assert answer.value == 40
    assert isinstance(toy.dispatcher.call("lamp.get_all_records", [session], STRANGER), Answer)


async def test_async_call_has_a_task_with_result(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    answer = await toy.answer("Async.lamp.repair", session, lamp)
    task = answer.value
    assert answer.type == RefTo("task")
    assert toy.task(task)["status"] == "pending"
    assert toy.task(task)["name_label"] == "Async.lamp.repair"
    assert toy.task(task)["resident_on"] == toy.host
    await toy.turns()
    assert dict(toy.database.get("lamp", lamp, "current_operations")) == {task: "repair"}
    toy.pace.set()
    await toy.until(lambda: toy.task(task)["status"] != "pending")
    record = await toy.call("task.get_record", session, task)
    assert (record["status"], record["result"], record["progress"]) == ("success", f"<value>{lamp}</value>", 1.0)
    assert record["finished"] == "20110930T00:00:00Z"
    assert toy.database.get("lamp", lamp, "current_operations") == {}
    assert await toy.call("session.get_tasks", session, session) == (task,)
    await toy.call("task.destroy", session, task)
    assert await toy.call("session.get_tasks", session, session) == ()


async def test_result_of_void_is_empty_and_failure_is_on_the_task(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    first = await toy.call("Async.lamp.switch_on", session, lamp, False)
    await toy.until(lambda: toy.task(first)["status"] != "pending")
    second = await toy.call("Async.lamp.switch_on", session, lamp, False)
    await toy.until(lambda: toy.task(second)["status"] != "pending")
    assert (toy.task(first)["status"], toy.task(first)["result"]) == ("success", "")
    assert toy.task(second)["status"] == "failure"
    assert toy.task(second)["error_info"] == ("OPERATION_NOT_ALLOWED", "It is on.")


async def test_synchronous_call_leaves_no_task(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.call("lamp.switch_on", session, lamp, False)
    assert toy.database.get("lamp", lamp, "on") is True
    assert toy.database.get("lamp", lamp, "allowed_operations") == ("repair",)
    assert toy.database.refs("task") == ()
    assert await toy.call("session.get_tasks", session, session) == ()


async def test_call_goes_on_when_its_caller_hangs_up(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    caller = asyncio.create_task(toy.call("lamp.switch_on", session, lamp, True))
    await toy.turns()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    toy.pace.set()
    await toy.until(lambda: bool(toy.database.get("lamp", lamp, "on")))


ERRORS: list[tuple[str, list[Any], tuple[str, ...]]] = [
    ("lamp.get_colors", [], ("MESSAGE_METHOD_UNKNOWN", "lamp.get_colors")),
    ("Async.lamp.nothing", [], ("MESSAGE_METHOD_UNKNOWN", "Async.lamp.nothing")),
    ("Async.lamp_repair", [], ("MESSAGE_METHOD_UNKNOWN", "Async.lamp_repair")),
    ("", [], ("MESSAGE_METHOD_UNKNOWN", "")),
    ("lamp.get_watts\ud800", [], ("MESSAGE_METHOD_UNKNOWN", "lamp.get_watts\ufffd")),
    ("lamp.sum", [], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "lamp.sum", "1", "0")),
    ("lamp.get_watts", [], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "lamp.get_watts", "1", "0")),
    ("lamp_get_watts", ["a", "b"], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "lamp.get_watts", "1", "2")),
    ("lamp.describe", [], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "lamp.describe", "1", "0")),
    ("lamp.describe", ["a", "b", "c"], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "lamp.describe", "2", "3")),
    ("lamp.sum", [{"a": 1}], ("XMLRPC_UNMARSHAL_FAILURE", "int set", "<value><struct>1 members</struct></value>")),
    ("lamp.get_watts", [17], ("XMLRPC_UNMARSHAL_FAILURE", "lamp ref", "<value><int>17</int></value>")),
    ("lamp.get_watts", ["OpaqueRef:no"], ("HANDLE_INVALID", "lamp", "OpaqueRef:no")),
    ("lamp.get_watts", [""], ("HANDLE_INVALID", "lamp", NULL_REF)),
    ("lamp.get_record", ["OpaqueRef:no"], ("HANDLE_INVALID", "lamp", "OpaqueRef:no")),
    ("lamp.set_name_label", ["OpaqueRef:no", "x"], ("HANDLE_INVALID", "lamp", "OpaqueRef:no")),
    ("lamp.destroy", ["OpaqueRef:no"], ("HANDLE_INVALID", "lamp", "OpaqueRef:no")),
    ("lamp.get_by_uuid", ["no"], ("UUID_INVALID", "lamp", "no")),
    ("lamp.set_colour", ["x", "green"], ("INVALID_VALUE", "value", "green")),
    ("lamp.gaslight", ["x"], ("MESSAGE_REMOVED",)),
    ("lamp.get_older", ["x"], ("MESSAGE_REMOVED",)),
    ("lamp.melt", ["x"], ("NOT_IMPLEMENTED", "lamp.melt")),
    ("Async.lamp.melt", ["x"], ("NOT_IMPLEMENTED", "lamp.melt")),
    ("Async.lamp.sum", ["x"], ("XMLRPC_UNMARSHAL_FAILURE", "int set", "<value>x</value>")),
    ("Async.lamp.get_watts", ["x"], ("INTERNAL_ERROR", "lamp.get_watts has no asynchronous form.")),
    ("Async.event.next", [], ("INTERNAL_ERROR", "event.next has no asynchronous form.")),
    ("lamp.create", [{"name_label": "x"}], ("INVALID_VALUE", "lamp.watts", "missing, and there is no default")),
    ("session.login_with_password", [], ("MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password", "2", "1")),
]


@pytest.mark.parametrize(("method", "params", "description"), ERRORS)
async def test_errors_of_bad_calls(toy: Toy, method: str, params: list[Any], description: tuple[str, ...]) -> None:
    session = await toy.root()
    assert await toy.fails(method, session, *params) == description
    assert toy.database.refs("task") == ()


async def test_checks_come_in_their_order(toy: Toy) -> None:
    reader = await toy.session_of("read-only")
    # No session before role, role before the number of parameters, that before types, types before implementation.
    assert await toy.fails("lamp.melt", "OpaqueRef:none") == ("SESSION_INVALID", "OpaqueRef:none")
    assert (await toy.fails("lamp.melt", reader))[:2] == ("RBAC_PERMISSION_DENIED", "lamp.melt")
    root = await toy.root()
    assert (await toy.fails("lamp.melt", root))[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert (await toy.fails("lamp.melt", root, 3))[0] == "XMLRPC_UNMARSHAL_FAILURE"
    assert (await toy.fails("lamp.melt", root, "x"))[0] == "NOT_IMPLEMENTED"


async def test_session_parameter_is_checked(toy: Toy) -> None:
    assert await toy.fails("lamp.get_all") == ("SESSION_INVALID", "")
    assert (await toy.fails("lamp.get_all", ["x"]))[0] == "XMLRPC_UNMARSHAL_FAILURE"
    assert (await toy.fails("lamp.get_watts", {"a": 1}, "x"))[0] == "XMLRPC_UNMARSHAL_FAILURE"
    assert (await toy.fails("lamp.get_watts", await toy.root(), ["x"]))[0] == "XMLRPC_UNMARSHAL_FAILURE"
    assert await toy.fails("lamp.get_all", "\ud800") == ("SESSION_INVALID", "\ufffd")
    assert await toy.fails("Async.event.next", "no") == ("SESSION_INVALID", "no")


async def test_messages_of_kept_releases_are_served_after_their_removal(toy: Toy) -> None:
    assert await toy.call("lamp.get_old", await toy.root(), toy.lamp(old="as ever")) == "as ever"


async def test_unexpected_exception_is_one_line_for_the_client_and_a_trace_in_the_log(
    toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    session = await toy.root()
    with caplog.at_level(logging.ERROR):
        assert await toy.fails("lamp.explode", session, "x") == ("INTERNAL_ERROR", "RuntimeError: bang x")
    assert "lamp.explode" in caplog.text
    assert "toy_calls.py" in caplog.text
    task = await toy.call("Async.lamp.explode", session, "x")
    await toy.until(lambda: toy.task(task)["status"] != "pending")
    assert toy.task(task)["error_info"] == ("INTERNAL_ERROR", "RuntimeError: bang x")


async def test_secrets_do_not_reach_the_log(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    session = await toy.root()
    with caplog.at_level(logging.DEBUG):
        assert await toy.fails("lamp.lock", session, "x", "swordfish") == ("INTERNAL_ERROR", "RuntimeError")
        assert (await toy.fails("session.change_password", session, "swordfish", "x"))[0] == "CHANGE_PASSWORD_REJECTED"
    assert "lamp.lock" in caplog.text
    assert "swordfish" not in caplog.text
    assert session not in caplog.text


async def test_list_methods_and_watchdog_need_no_session(toy: Toy) -> None:
    answer = await toy.answer("system.listMethods")
    assert (answer.type, answer.bare) == (STRING_SET, True)
    assert {"lamp.get_all_records", "Async.lamp.repair", "lamp.create", "system.listMethods"} <= set(answer.value)
    assert not {*NOT_IMPLEMENTED, "lamp.gaslight", "Async.lamp.get_watts", "lamp_get_watts"} & set(answer.value)
    assert answer.value == toy.dispatcher.method_names
    echo = await toy.answer("system.isAlive:127.0.0.1", "hello")
    assert (echo.type, echo.value, echo.bare) == (STRING, "hello", True)


async def test_guard_refuses_before_anything_else(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()

    def booting(method: str, origin: Any) -> None:
        if method != "session.login_with_password":
            raise ApiError("HOST_STILL_BOOTING")

    toy.dispatcher.guard = booting
    assert await toy.fails("lamp.get_watts", session, lamp) == ("HOST_STILL_BOOTING",)
    await toy.root()
    toy.dispatcher.guard = None
    assert await toy.call("lamp.get_watts", session, lamp) == 40


async def test_emergency_session_is_for_local_methods_alone(toy: Toy) -> None:
    session = await toy.call("session.slave_local_login_with_password", "root", PASSWORD)
    lamp = toy.lamp()
    assert await toy.fails("lamp.get_watts", session, lamp) == ("SESSION_INVALID", session)
    assert await toy.call("session.local_logout", session) is None
    assert await toy.fails("session.local_logout", session) == ("SESSION_INVALID", session)


async def test_set_hook_sees_and_refuses_values(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.call("lamp.set_bright", session, lamp, 2)
    assert await toy.fails("lamp.set_bright", session, lamp, -1.5) == ("INVALID_VALUE", "bright", "-1.5")
    assert toy.hooked == [(lamp, 2.0), (lamp, -1.5)]
    assert await toy.call("lamp.get_bright", session, lamp) == 2.0


async def test_local_caller_is_root_with_any_password(toy: Toy) -> None:
    session = await toy.call("session.login_with_password", "nobody", "nonsense", origin=LOCAL)
    record = await toy.call("session.get_record", session, session)
    assert (record["is_local_superuser"], record["auth_user_name"]) == (True, "root")
