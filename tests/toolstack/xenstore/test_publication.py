"""What a guest finds in the store about itself, and what it may do there."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.xenstore.protocol import Access, Permission, XenstoreError
from domzero.toolstack.xenstore.nodes import Card, Drive, Facts, nodes_of
from tests.toolstack.vm.world import MIB, world
from tests.toolstack.xenstore.conftest import Host, with_store


def refusal(action: object, *arguments: object) -> str:
    with pytest.raises(XenstoreError) as refused:
        action(*arguments)  # type: ignore[operator]  # a bound method
    return refused.value.code


async def test_a_guest_reads_about_itself(host: Host) -> None:
    vm = await host.started(name_label="Grüße", VCPUs_max=2, disks=2)
    record = host.world.row("VM", vm)
    guest = host.insider(vm)
    assert guest.read("name").decode() == "Grüße"
    assert guest.read("domid") == str(record["domid"]).encode()
    assert guest.read("vm").decode() == f"/vm/{record['uuid']}"
    assert guest.read(f"/vm/{record['uuid']}/name").decode() == "Grüße"
    assert guest.read("memory/static-max") == str(128 * 1024).encode()
    assert guest.read("memory/target") == str(record["memory_target"] // 1024).encode()
    assert (guest.read("cpu/0/availability"), guest.read("cpu/1/availability")) == (b"online", b"offline")
    assert guest.directory("device/vbd") == ("51712", "51728")
    assert guest.read("device/vbd/51728/device-type") == b"disk"
    mac = host.world.get("VIF", record["VIFs"][0], "MAC")
    assert guest.read("device/vif/0/mac").decode() == mac.lower()


def test_every_node_of_a_machine() -> None:
    facts = Facts(
        domid=7, uuid="the-uuid", name="n" * 3000, memory_target=96 * MIB, memory_dynamic_min=64 * MIB,
        memory_dynamic_max=128 * MIB, memory_static_max=256 * MIB, vcpus=1, vcpus_max=2,
        drives=(Drive(0, is_cd=False, read_only=False), Drive(3, is_cd=True, read_only=True)),
        cards=(Card(1, "02:00:00:00:00:01", 1500),), data={"vm-data/a/b": "c"},
    )  # fmt: skip
    told = {
        "": "", "name": "n" * 2048, "vm": "/vm/the-uuid", "domid": "7",
        "memory": "", "memory/target": "98304", "memory/static-max": "262144", "memory/dynamic-min": "65536",
        "memory/dynamic-max": "131072",
        "cpu": "", "cpu/0": "", "cpu/0/availability": "online", "cpu/1": "", "cpu/1/availability": "offline",
        "console": "", "console/type": "ioemu", "device": "", "device/vbd": "", "device/vif": "",
        "device/vbd/51712": "", "device/vbd/51712/virtual-device": "51712", "device/vbd/51712/device-type": "disk",
        "device/vbd/51712/mode": "w", "device/vbd/51712/backend-id": "0", "device/vbd/51712/state": "4",
        "device/vbd/51760": "", "device/vbd/51760/virtual-device": "51760", "device/vbd/51760/device-type": "cdrom",
        "device/vbd/51760/mode": "r", "device/vbd/51760/backend-id": "0", "device/vbd/51760/state": "4",
        "device/vif/1": "", "device/vif/1/handle": "1", "device/vif/1/mac": "02:00:00:00:00:01",
        "device/vif/1/mtu": "1500", "device/vif/1/backend-id": "0", "device/vif/1/state": "4",
    }  # fmt: skip
    own = dict.fromkeys(("attr", "control", "data", "drivers", "error", "feature", "messages", "vm-data"), "")
    own |= {"vm-data/a": "", "vm-data/a/b": "c"}
    machine = {"/vm/the-uuid": "", "/vm/the-uuid/uuid": "the-uuid", "/vm/the-uuid/name": "n" * 2048}
    nodes = nodes_of(facts)
    home = "/local/domain/7"
    assert {path: node.value.decode() for path, node in nodes.items()} == {
        **{f"{home}/{path}".rstrip("/"): value for path, value in {**told, **own}.items()}, **machine,
    }  # fmt: skip
    assert {path for path, node in nodes.items() if node.is_guests} == {f"{home}/{path}" for path in own}
    assert {node.permissions(7) for node in nodes.values() if not node.is_guests} == {
        (Permission(0, Access.NONE), Permission(7, Access.READ))
    }


async def test_the_amount_of_memory_is_told_as_it_changes(host: Host) -> None:
    vm = await host.started(memory_static_max=256 * MIB)
    guest = host.insider(vm)
    host.world.change("VM", vm, memory_target=100 * MIB)
    await host.world.settle()
    assert guest.read("memory/target") == b"102400"


async def test_rights_within_a_guest(host: Host) -> None:
    vm, other = await host.started(), await host.started()
    guest = host.insider(vm)
    for path in ("attr/PVAddons/MajorVersion", "data/updated", "control/feature-ts", "error/device", "vm-data/mine"):
        guest.write(path, b"1")
    host.service.local.write(f"/local/domain/{host.world.get('VM', vm, 'domid')}/control/ts", b"1")
    guest.remove("control/ts")
    for path in ("name", "memory/target", "device/vif/0/mac", "anything", "/vm/x", "/local/domain/0/x"):
        assert refusal(guest.write, path, b"1") == "EACCES", path
    home = f"/local/domain/{host.world.get('VM', other, 'domid')}"
    assert refusal(guest.read, f"{home}/name") == "EACCES"
    assert refusal(guest.write, f"{home}/data/x", b"") == "EACCES"
    assert refusal(guest.read, f"/vm/{host.world.get('VM', other, 'uuid')}/name") == "EACCES"


async def test_only_vm_data_of_xenstore_data_comes_through(host: Host) -> None:
    data = {
        "vm-data/foo": "bar", "vm-data/deep/er": "1", "vm-data/long": "x" * 5000, "vm-data/b a d": "1",
        "vm-data/../name": "evil", "vm-data": "no", "other/foo": "no", "/local/domain/0/x": "no", "vm-data/": "no",
    }  # fmt: skip
    vm = await host.started()
    await host.world.call("VM.set_xenstore_data", vm, data)
    await host.world.settle()
    guest = host.insider(vm)
    assert guest.read("vm-data/foo") == b"bar"
    assert guest.read("vm-data/deep/er") == b"1"
    assert guest.directory("vm-data") == ("deep", "foo")
    assert not guest.exists("other")
    guest.write("vm-data/foo", b"changed inside")
    guest.write("vm-data/own", b"1")
    await host.world.call("VM.add_to_xenstore_data", vm, "vm-data/new", "2")
    await host.world.call("VM.remove_from_xenstore_data", vm, "vm-data/deep/er")
    await host.world.settle()
    assert guest.read("vm-data/new") == b"2"
    assert not guest.exists("vm-data/deep")
    assert (guest.read("vm-data/foo"), guest.read("vm-data/own")) == (b"changed inside", b"1")


async def test_a_suspended_machine_goes_on_as_another_domain(host: Host) -> None:
    vm = await host.started(xenstore_data={"vm-data/foo": "bar"})
    assert host.insider(vm).read("vm-data/foo") == b"bar"
    host.insider(vm).report()
    await host.a_second()
    await host.world.over(host.world.call("VM.suspend", vm), 10)
    assert host.service.local.directory("/local/domain") == ()
    assert host.metrics(vm) is not None
    await host.world.over(host.world.call("VM.resume", vm, False, False), 10)
    guest = host.insider(vm)
    assert guest.read("vm-data/foo") == b"bar"
    assert guest.read("memory/target") == str(128 * 1024).encode()
    guest.report(data__os_name="after")
    await host.a_second()
    assert (host.metrics(vm) or {})["os_version"] == {"name": "after"}


async def test_changes_are_told(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    await host.world.call("VM.set_name_label", vm, "renamed")
    vif = host.world.get("VM", vm, "VIFs")[0]
    await host.world.call("VIF.unplug", vif)
    await host.world.settle()
    assert guest.read("name") == b"renamed"
    assert guest.directory("device/vif") == ()
    await host.world.call("VIF.plug", vif)
    await host.world.settle()
    assert guest.directory("device/vif") == ("0",)


async def test_an_end_leaves_nothing(host: Host) -> None:
    vm = await host.started()
    first = host.world.get("VM", vm, "domid")
    host.insider(vm).write("data/x", b"1")
    await host.world.call("VM.hard_reboot", vm)
    assert not host.service.local.exists(f"/local/domain/{first}")
    second = host.world.get("VM", vm, "domid")
    assert host.seen(f"/local/domain/{second}/vm") == f"/vm/{host.world.get('VM', vm, 'uuid')}"
    assert host.seen(f"/vm/{host.world.get('VM', vm, 'uuid')}/name") == "a machine"
    await host.world.call("VM.hard_shutdown", vm)
    assert host.service.local.directory("/local/domain") == ()
    assert host.service.local.directory("/vm") == ()
    assert not host.service.local.is_introduced(second)


async def test_a_start_that_fails_leaves_nothing(host: Host) -> None:
    vm = await host.world.machine(other_config={"sim:fail": "start"})
    assert await host.world.fails("VM.start", vm, False, False)
    assert not host.service.local.exists("/local/domain") or host.service.local.directory("/local/domain") == ()


async def test_a_later_daemon_takes_over(tmp_path: Path) -> None:
    clock = ManualClock()
    first = world(tmp_path, database=tmp_path / "db", clock=clock)
    async with first as running, with_store(running, tmp_path) as host:
        vm = await host.started(memory_static_max=256 * MIB)
        host.insider(vm).write("data/kept", b"1")
        domid = host.world.get("VM", vm, "domid")
        host.service.local.introduce(domid + 1)
        host.service.local.write(f"/local/domain/{domid + 1}/vm", b"/vm/gone")
        host.service.local.write("/vm/gone/name", b"ended meanwhile")
    again = world(tmp_path, database=tmp_path / "db", clock=clock)
    async with again as running, with_store(running, tmp_path) as host:
        # The composition root opens the store before domains are adopted.
        host.world.stack.guests.appear(vm, domid)
        host.world.stack.guests.retain({domid})
        assert host.seen(f"/local/domain/{domid}/data/kept") == "1"
        assert host.service.local.directory("/local/domain") == (str(domid),)
        assert not host.service.local.exists("/vm/gone")
        assert not host.service.local.is_introduced(domid + 1)
        host.world.change("VM", vm, name_label="later")
        await host.world.settle()
        assert host.insider(vm).read("name") == b"later"


@pytest.mark.parametrize("silent", [True, False])
async def test_a_later_daemon_believes_what_was_known_of_an_agent_until_it_speaks(tmp_path: Path, silent: bool) -> None:
    clock = ManualClock()
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as running, with_store(running, tmp_path) as host:
        vm = await host.started()
        domid = host.world.get("VM", vm, "domid")
        host.insider(vm).report()
        await host.a_second()
        await clock.advance(400 if silent else 200)
        assert (host.metrics(vm) or {})["live"] is not silent
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as running, with_store(running, tmp_path) as host:
        host.world.stack.guests.appear(vm, domid)
        await host.a_second()
        assert (host.metrics(vm) or {})["live"] is not silent
        await clock.advance(400)
        assert (host.metrics(vm) or {})["live"] is False
        host.insider(vm).report()
        await host.a_second()
        assert (host.metrics(vm) or {})["live"] is True
