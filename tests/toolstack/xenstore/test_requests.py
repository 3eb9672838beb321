"""What the toolstack asks of agents: to shut down, and to turn remote desktops on and off."""

from __future__ import annotations

from domzero.host.hypervisor.protocol import StopReason
from tests.toolstack.xenstore.conftest import Host

AGENT = "guest-agent-operation"


async def test_the_agent_shuts_down(host: Host) -> None:
    vm = await host.started(other_config={"sim:ignore-shutdown": "true"})
    guest = host.insider(vm)
    guest.write("control/feature-shutdown", b"1")
    call = host.world.begin("VM.clean_shutdown", vm)
    await host.until(lambda: guest.exists("control/shutdown"))
    assert guest.read("control/shutdown") == b"poweroff"
    guest.remove("control/shutdown")
    await host.world.clock.advance(10)
    domain = host.world.hypervisor._domains[host.world.get("VM", vm, "domid")]
    assert domain.powers_off_at is None
    host.world.hypervisor._end(domain, StopReason.SHUTDOWN)
    await call
    assert host.world.power_state(vm) == "Halted"


async def test_the_agent_reboots(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.write("control/feature-shutdown", b"1")
    call = host.world.begin("VM.clean_reboot", vm)
    await host.until(lambda: guest.exists("control/shutdown"))
    assert guest.read("control/shutdown") == b"reboot"
    guest.write("control/shutdown", b"")
    await host.world.settle()
    before = host.world.get("VM", vm, "domid")
    host.world.hypervisor._end(host.world.hypervisor._domains[before], StopReason.REBOOT)
    await host.world.over(call, 10)
    assert host.world.power_state(vm) == "Running"
    assert host.world.get("VM", vm, "domid") > before


async def test_without_an_agent_the_button_is_pressed(host: Host) -> None:
    vm = await host.started()
    before = host.world.get("VM", vm, "domid")
    await host.world.over(host.world.call("VM.clean_reboot", vm), 10)
    assert (host.world.power_state(vm), host.world.get("VM", vm, "domid") > before) == ("Running", True)
    await host.world.over(host.world.call("VM.clean_shutdown", vm), 10)
    assert host.world.power_state(vm) == "Halted"


async def test_an_agent_that_does_not_answer(host: Host) -> None:
    """Its request is taken back, and the button pressed after all."""
    vm = await host.started()
    guest = host.insider(vm)
    guest.write("control/feature-shutdown", b"1")
    call = host.world.begin("VM.clean_shutdown", vm)
    await host.until(lambda: guest.exists("control/shutdown"))
    await host.world.clock.advance(20)
    assert host.world.power_state(vm) == "Running"
    await host.world.over(call, 20)
    assert host.world.power_state(vm) == "Halted"


async def test_a_cancelled_request_is_taken_back(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.write("control/feature-shutdown", b"1")
    task = await host.world.call("Async.VM.clean_shutdown", vm)
    await host.until(lambda: guest.exists("control/shutdown"))
    await host.world.call("task.cancel", task)
    await host.until(lambda: not guest.exists("control/shutdown"))
    assert host.world.power_state(vm) == "Running"


async def test_without_agent_and_button_nobody_can_ask(host: Host) -> None:
    vm = await host.started(platform={"acpi": "false"})
    for method in ("VM.clean_shutdown", "VM.clean_reboot"):
        assert await host.world.fails(method, vm) == ("VM_MISSING_PV_DRIVERS", vm)
    guest = host.insider(vm)
    guest.write("control/feature-shutdown", b"1")
    guest.report()
    await host.a_second()
    assert {"clean_shutdown", "clean_reboot"} <= set(host.world.get("VM", vm, "allowed_operations"))


async def test_the_remote_desktop_round_trip(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.write("control/feature-ts", b"1")
    guest.write("control/feature-ts2", b"1")
    guest.write("data/ts", b"0")
    guest.report()
    await host.a_second()
    assert (host.metrics(vm) or {})["other"] == {"feature-ts": "1", "feature-ts2": "1", "data-ts": "0"}
    assert await host.world.call("VM.call_plugin", vm, AGENT, "request_rdp_on", {}) == ""
    assert guest.read("control/ts") == b"1"
    guest.remove("control/ts")
    guest.remove("data/ts")
    await host.a_second()
    assert "data-ts" not in (host.metrics(vm) or {})["other"]  # type: ignore[operator]  # a map
    guest.write("data/ts", b"1")
    await host.a_second()
    assert (host.metrics(vm) or {})["other"]["data-ts"] == "1"  # type: ignore[index]  # a map
    await host.world.clock.advance(10)
    await host.world.call("VM.call_plugin", vm, AGENT, "request-rdp-off", {})
    assert guest.read("control/ts") == b"0"
