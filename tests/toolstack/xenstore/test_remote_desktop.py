"""VM.call_plugin: what is refused and with which error, how often, by whom, and with agents of every age."""

from __future__ import annotations

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.engine.calls import LOCAL
from domzero.engine.errors import ApiError
from domzero.engine.sessions import Account
from domzero.idl.types import Ref
from tests.toolstack.xenstore.conftest import Host, Insider

AGENT = "guest-agent-operation"
SPELLINGS = {
    "request-rdp-on": b"1", "request_rdp_on": b"1", "request-rdp_on": b"1",
    "request-rdp-off": b"0", "request_rdp_off": b"0",
}  # fmt: skip


async def offering(host: Host, **features: str) -> tuple[Ref, Insider]:
    """A running machine whose agent has announced something in `control`."""
    vm = await host.started()
    guest = host.insider(vm)
    for name, value in features.items():
        guest.write(f"control/{name.replace('_', '-')}", value.encode())
    guest.report()
    await host.a_second()
    return vm, guest


async def ask(host: Host, vm: Ref, fn: str = "request-rdp-on", plugin: str = AGENT) -> tuple[str, ...]:
    """Code and parameters of the error; nothing where the agent was asked."""
    try:
        assert await host.world.call("VM.call_plugin", vm, plugin, fn, {}) == ""
    except ApiError as error:
        return error.description
    return ()


@pytest.mark.parametrize("fn", SPELLINGS)
async def test_both_spellings(host: Host, fn: str) -> None:
    vm, guest = await offering(host, feature_ts="1", feature_ts2="1")
    assert await ask(host, vm, fn) == ()
    assert guest.read("control/ts") == SPELLINGS[fn]


async def test_an_old_agent_is_asked_and_tells_nothing(host: Host) -> None:
    """It neither acknowledges a request nor says what became of it; the next one reaches it all the same."""
    vm, guest = await offering(host, feature_ts="1")
    assert (host.metrics(vm) or {})["other"] == {"feature-ts": "1"}
    async with host.service.local.watch(f"/local/domain/{host.world.get('VM', vm, 'domid')}/control/ts") as changes:
        await anext(changes)
        for fn, request in (("request-rdp-on", b"1"), ("request-rdp-on", b"1"), ("request-rdp-off", b"0")):
            assert await ask(host, vm, fn) == ()
            await anext(changes)
            assert guest.read("control/ts") == request
            await host.world.clock.advance(10)
    assert (host.metrics(vm) or {})["other"] == {"feature-ts": "1"}


async def test_an_agent_may_acknowledge_what_the_host_has_written(host: Host) -> None:
    vm, guest = await offering(host, feature_ts="1", feature_ts2="1")
    assert await ask(host, vm) == ()
    assert guest.read("control/ts") == b"1"
    guest.remove("control/ts")
    assert not guest.exists("control/ts")


@pytest.mark.parametrize("features", [{}, {"feature_ts": "0"}, {"feature_ts": ""}, {"feature_ts": "yes"}])
async def test_without_an_agent_that_offers_it(host: Host, features: dict[str, str]) -> None:
    vm, guest = await offering(host, **features)
    assert await ask(host, vm) == (
        "XENAPI_PLUGIN_FAILURE", "not offered", "", "no agent in the guest offers to do this",
    )  # fmt: skip
    assert not guest.exists("control/ts")


async def test_other_plugins_and_functions(host: Host) -> None:
    vm, guest = await offering(host, feature_ts="1")
    for plugin in ("", "guest_agent_operation", "other", "../x"):
        assert await ask(host, vm, plugin=plugin) == ("XENAPI_MISSING_PLUGIN", plugin)
    for fn in ("", "request-rdp", "REQUEST-RDP-ON", "run-script"):
        said = f"{AGENT} has no function {fn}"
        assert await ask(host, vm, fn) == ("XENAPI_PLUGIN_FAILURE", "no such function", "", said)
    assert not guest.exists("control/ts")
    assert await ask(host, vm) == (), "what was refused so far counts for nothing"


async def test_one_call_in_ten_seconds_for_each_machine(host: Host) -> None:
    vm, guest = await offering(host, feature_ts="1")
    other, _ = await offering(host, feature_ts="1")
    assert await ask(host, vm) == ()
    guest.remove("control/ts")
    assert await ask(host, vm) == ("VM_CALL_PLUGIN_RATE_LIMIT", vm, "10", "10")
    await host.world.clock.advance(3.5)
    assert await ask(host, vm, "request_rdp_off") == ("VM_CALL_PLUGIN_RATE_LIMIT", vm, "10", "7")
    assert await ask(host, other) == ()
    await host.world.clock.advance(6.4)
    assert await ask(host, vm) == ("VM_CALL_PLUGIN_RATE_LIMIT", vm, "10", "1")
    assert not guest.exists("control/ts")
    await host.world.clock.advance(0.2)
    assert await ask(host, vm) == ()


async def test_only_a_running_machine_can_be_asked(host: Host) -> None:
    vm, _ = await offering(host, feature_ts="1")
    for message, state in (("VM.pause", "paused"), ("VM.hard_shutdown", "halted")):
        await host.world.call(message, vm)
        assert await ask(host, vm) == ("VM_BAD_POWER_STATE", vm, "running", state)
    assert "call_plugin" not in host.world.get("VM", vm, "allowed_operations")
    await host.world.call("VM.set_is_a_template", vm, True)
    assert (await ask(host, vm))[0] in ("VM_BAD_POWER_STATE", "VM_IS_TEMPLATE")
    assert await ask(host, "OpaqueRef:nothing") == ("HANDLE_INVALID", "VM", "OpaqueRef:nothing")


async def test_an_operator_of_machines_may_ask_and_a_reader_may_not(host: Host) -> None:
    vm, guest = await offering(host, feature_ts="1")
    reader, operator = (Account(role, GRAPH.roles[role].rank) for role in ("read-only", "vm-operator"))
    call, arguments = host.world.dispatcher.call, [vm, AGENT, "request-rdp-on", {}]
    sessions = host.world.stack.sessions
    with sessions.lend(reader, "tests") as session, pytest.raises(ApiError, match="RBAC_PERMISSION_DENIED"):
        call("VM.call_plugin", [session.ref, *arguments], LOCAL)
    assert not guest.exists("control/ts")
    with sessions.lend(operator, "tests") as session:
        await call("VM.call_plugin", [session.ref, *arguments], LOCAL)  # type: ignore[misc]  # an answer to wait for
    assert guest.read("control/ts") == b"1"


async def test_a_task_may_carry_the_call(host: Host) -> None:
    vm, guest = await offering(host, feature_ts="1")
    task = await host.world.call("Async.VM.call_plugin", vm, AGENT, "request-rdp-on", {})
    await host.until(lambda: host.world.get("task", task, "status") != "pending")
    assert host.world.get("task", task, "status") == "success"
    assert guest.read("control/ts") == b"1"
