"""Alerts about objects, over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import XenAPI

from domzero.idl.types import NEVER
from tests.api.harness import PASSWORD, InProcessHost, login

NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def vm(api: Any) -> str:
    """The uuid of a template."""
    return str(api.VM.get_uuid(api.VM.get_by_name_label("Tiny Linux")[0]))


@pytest.fixture(autouse=True)
def no_messages(api: Any) -> Iterator[None]:
    yield
    api.message.destroy_many(api.message.get_all())
    assert api.message.get_all() == []


def test_a_message_is_read_in_every_way(api: Any, vm: str) -> None:
    message = api.message.create("DISK_FULL", 2, "VM", vm, "<b>90 %</b> & more")
    record = api.message.get_record(message)
    assert {name: record[name] for name in ("name", "priority", "cls", "obj_uuid", "body")} == {
        "name": "DISK_FULL",
        "priority": "2",
        "cls": "VM",
        "obj_uuid": vm,
        "body": "<b>90 %</b> & more",
    }
    assert api.message.get_by_uuid(record["uuid"]) == message
    assert api.message.get_all() == [message]
    assert api.message.get_all_records() == api.message.get_all_records_where("true") == {message: record}
    assert api.message.get_all_records_where('field "name" = "OTHER"') == {}


def test_messages_of_an_object_and_of_a_time(api: Any, vm: str) -> None:
    host = api.host.get_uuid(api.host.get_all()[0])
    of_vm = api.message.create("A", 1, "VM", vm, "")
    of_host = api.message.create("B", 1, "Host", host, "")
    now = api.message.get_record(of_host)["timestamp"]
    assert set(api.message.get("VM", vm, NEVER)) == {of_vm}
    assert set(api.message.get("Host", host, NEVER)) == {of_host}
    assert set(api.message.get_since(NEVER)) == {of_vm, of_host}
    assert of_host not in api.message.get_since(now)
    assert of_host not in api.message.get("Host", host, now)


def test_deleting_several_is_all_or_nothing(api: Any, vm: str) -> None:
    first, second = (api.message.create(name, 1, "VM", vm, "") for name in "AB")
    api.message.destroy(first)
    with pytest.raises(XenAPI.Failure) as failure:
        api.message.destroy_many([second, first])
    assert failure.value.details == ["HANDLE_INVALID", "message", first]
    assert api.message.get_all() == [second]
    api.message.destroy_many([second, second])
    assert api.message.get_all() == []


def test_mistakes(api: Any, vm: str) -> None:
    mistakes: tuple[tuple[Callable[[], Any], list[str]], ...] = (
        (lambda: api.message.create("A", 1, "VM", NOWHERE, ""), ["UUID_INVALID", "VM", NOWHERE]),
        (lambda: api.message.create("A", 1, "Host", vm, ""), ["UUID_INVALID", "host", vm]),
        (lambda: api.message.get("VM", NOWHERE, NEVER), ["UUID_INVALID", "VM", NOWHERE]),
        (lambda: api.message.get_by_uuid(NOWHERE), ["UUID_INVALID", "message", NOWHERE]),
        (lambda: api.message.get_record(NOWHERE), ["HANDLE_INVALID", "message", NOWHERE]),
        (lambda: api.message.destroy(NOWHERE), ["HANDLE_INVALID", "message", NOWHERE]),
    )
    for call, error in mistakes:
        with pytest.raises(XenAPI.Failure) as failure:
            call()
        assert failure.value.details == error
    assert api.message.get_all() == []


def test_a_message_is_an_event(api: Any, vm: str) -> None:
    token = api.event_from(["message"], "", 0.0)["token"]
    message = api.message.create("A", 3, "VM", vm, "look")
    batch = api.event_from(["message"], token, 5.0)
    (event,) = batch["events"]
    assert (event["operation"], event["ref"], event["snapshot"]["body"]) == ("add", message, "look")
    api.message.destroy(message)
    (event,) = api.event_from(["message"], batch["token"], 5.0)["events"]
    assert (event["operation"], event["ref"]) == ("del", message)


def test_who_may_only_look_may_not_raise_alerts(host: InProcessHost, api: Any, vm: str) -> None:
    host.run(host.daemon.engine.users.add("looker", PASSWORD, "read-only"))
    looker = login(host.url, "looker").xenapi
    message = api.message.create("A", 1, "VM", vm, "")
    assert looker.message.get_all() == [message]
    for name, parameters in (("create", ("A", 1, "VM", vm, "")), ("destroy", (message,))):
        with pytest.raises(XenAPI.Failure) as failure:
            getattr(looker.message, name)(*parameters)
        assert failure.value.details[0] == "RBAC_PERMISSION_DENIED"
