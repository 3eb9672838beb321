"""What a client gets for calls that are wrong in themselves: the documented code with its parameters, over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.harness import PASSWORD, InProcessHost, login, plain_proxy
from tests.api.jsonrpc import JsonRpc

NOBODY = "OpaqueRef:00000000-0000-0000-0000-000000000000"


class Caller:
    """Calls a method with a session and gives the answer's struct, or the error of one that must fail."""

    def __init__(self, url: str, handle: str) -> None:
        self._proxy = plain_proxy(url)
        self.handle = handle

    def answer(self, method: str, *params: Any) -> dict[str, Any]:
        return dict(getattr(self._proxy, method)(*params))

    def error(self, method: str, *params: Any) -> list[str]:
        answer = self.answer(method, self.handle, *params)
        assert answer["Status"] == "Failure"
        return list(answer["ErrorDescription"])


@pytest.fixture
def caller(host: InProcessHost) -> Iterator[Caller]:
    session = login(host.url)
    yield Caller(host.url, session.handle)
    session.xenapi.session.logout()


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("VM.levitate", (), ["MESSAGE_METHOD_UNKNOWN", "VM.levitate"]),
        ("levitate", (), ["MESSAGE_METHOD_UNKNOWN", "levitate"]),
        ("VM.start", (NOBODY,), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"]),
        ("VM.get_all", ("more",), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_all", "0", "1"]),
        ("VM.get_record", (NOBODY,), ["HANDLE_INVALID", "VM", NOBODY]),
        ("VM.start", (NOBODY, False, False), ["HANDLE_INVALID", "VM", NOBODY]),
        ("VM.get_name_label", ("no reference",), ["HANDLE_INVALID", "VM", "no reference"]),
        ("VM.get_by_uuid", ("nobody",), ["UUID_INVALID", "VM", "nobody"]),
        ("SR.make", (NOBODY, {}, "0", "", "", "", "", {}), ["MESSAGE_DEPRECATED"]),
        ("VM.snapshot_with_quiesce", (NOBODY, "name"), ["MESSAGE_REMOVED"]),
        ("event.from", (["vm"], "no token", 1.0), ["EVENT_FROM_TOKEN_PARSE_FAILURE", "no token"]),
    ],
)
def test_wrong_calls(caller: Caller, method: str, params: tuple[Any, ...], error: list[str]) -> None:
    assert caller.error(method, *params) == error


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("VM.start", ({}, False, False), "XMLRPC_UNMARSHAL_FAILURE"),
        ("VM.start", (NOBODY, "true", False), "XMLRPC_UNMARSHAL_FAILURE"),
        ("VM.set_user_version", (NOBODY, "seven"), "XMLRPC_UNMARSHAL_FAILURE"),
        ("VM.set_other_config", (NOBODY, ["list"]), "XMLRPC_UNMARSHAL_FAILURE"),
        ("VM.set_tags", (NOBODY, "word"), "XMLRPC_UNMARSHAL_FAILURE"),
        ("VM.assert_operation_valid", (NOBODY, "levitate"), "INVALID_VALUE"),
        ("VM.get_all_records_where", ("field ++",), "INVALID_VALUE"),
        ("task.cancel", (NOBODY,), "HANDLE_INVALID"),
    ],
)
def test_values_that_cannot_be(caller: Caller, method: str, params: tuple[Any, ...], code: str) -> None:
    assert caller.error(method, *params)[0] == code


def test_asynchronous_calls_are_checked_before_a_task_is_made(host: InProcessHost, caller: Caller) -> None:
    before = login(host.url).xenapi.task.get_all()
    assert caller.error("Async.VM.start", NOBODY)[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert caller.error("Async.VM.start", NOBODY, "true", False)[0] == "XMLRPC_UNMARSHAL_FAILURE"
    assert login(host.url).xenapi.task.get_all() == before


def test_there_is_no_asynchronous_getter(caller: Caller) -> None:
    assert caller.error("Async.VM.get_record", NOBODY)[0] in ("INTERNAL_ERROR", "MESSAGE_METHOD_UNKNOWN")


@pytest.mark.parametrize("params", [(), ("",), ("OpaqueRef:NULL",), (NOBODY,)])
def test_calls_without_a_session(caller: Caller, params: tuple[str, ...]) -> None:
    assert caller.answer("VM.get_all", *params)["ErrorDescription"][0] == "SESSION_INVALID"


def test_keys_are_added_once(caller: Caller, template: str) -> None:
    add = ("network.add_to_other_config", "key", "value")
    network = caller.answer("network.get_all", caller.handle)["Value"][0]
    assert caller.answer(add[0], caller.handle, network, *add[1:])["Status"] == "Success"
    assert caller.error(add[0], network, *add[1:]) == ["MAP_DUPLICATE_KEY", "network", "other_config", network, "key"]
    for _ in range(2):
        answer = caller.answer("network.remove_from_other_config", caller.handle, network, "key")
        assert answer["Status"] == "Success"


@pytest.mark.slow
def test_a_wrong_password_costs_time_and_names_the_user(caller: Caller) -> None:
    answer = caller.answer("session.login_with_password", "root", "wrong")
    assert answer["ErrorDescription"][:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]


def test_who_may_not(host: InProcessHost) -> None:
    host.run(host.daemon.engine.users.add("reader", PASSWORD, "read-only"))
    reader = Caller(host.url, login(host.url, "reader").handle)
    error = reader.error("VM.start", NOBODY, False, False)
    assert error[:2] == ["RBAC_PERMISSION_DENIED", "vm.start"]
    assert len(error) == 3


def test_what_is_no_text(host: InProcessHost, caller: Caller) -> None:
    """XML cannot carry control characters at all; in JSON they come through and are refused."""
    error = JsonRpc(host.url).raw("VM.get_by_name_label", caller.handle, "a\x08b")["error"]
    assert error["message"] == "INVALID_VALUE"
