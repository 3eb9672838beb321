"""Machines through their power states, as clients see them."""

from __future__ import annotations

from tests.toolstack.vm.world import World


async def test_start_shows_a_running_machine(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    record = host.row("VM", vm)
    assert record["power_state"] == "Running"
    assert record["resident_on"] == host.stack.host
    assert record["scheduled_to_be_resident_on"] == "OpaqueRef:NULL"
    assert {record["domid"]} == host.domids()
    assert record["domid"] > 0
    assert record["current_operations"] == {}
    assert "clean_shutdown" in record["allowed_operations"]
    drive = host.row("VBD", record["VBDs"][0])
    assert (drive["currently_attached"], drive["device"]) == (True, "xvda")
    assert host.get("VIF", record["VIFs"][0], "currently_attached") is True
    assert host.cards() == {(record["domid"], 0)}
    assert host.get("VM_metrics", record["metrics"], "start_time") == "20110930T00:00:00Z"
    consoles = {
        host.get("console", ref, "protocol"): host.get("console", ref, "location") for ref in record["consoles"]
    }
    assert set(consoles) == {"rfb", "vt100"}
    assert all(f"/console?ref={ref}" in consoles[host.get("console", ref, "protocol")] for ref in record["consoles"])


async def test_hard_shutdown_leaves_nothing(host: World) -> None:
    vm = await host.machine()
    before = host.row("VM", vm)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.hard_shutdown", vm)
    after = host.row("VM", vm)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"last_booted_record", "memory_overhead"}
    assert host.domids() == set()
    assert host.cards() == set()
    assert host.get("VBD", after["VBDs"][0], "currently_attached") is False
    assert host.stack.database.refs("console") == ()
