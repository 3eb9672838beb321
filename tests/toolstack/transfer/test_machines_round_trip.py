"""A machine that is exported and imported again is the same machine."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from domzero.idl.types import VOID, Ref
from domzero.toolstack.transfer.export import export, export_metadata
from tests.sampling import each
from tests.toolstack.transfer.peers import MemoryPeer, ask, import_bytes, import_description
from tests.toolstack.vm.world import MIB, World


async def exported(host: World, vm: Ref, **query: str) -> bytes:
    peer = MemoryPeer()
    await ask(host, export, peer, VOID, ref=vm, **query)
    assert peer.status == 200
    return bytes(peer.received)


async def described(host: World, **query: str) -> bytes:
    peer = MemoryPeer()
    await ask(host, export_metadata, peer, VOID, **query)
    assert peer.promised == len(peer.received)
    return bytes(peer.received)


async def fill(host: World, vdi: Ref, parts: dict[int, bytes]) -> bytes:
    """Put bytes on a disk; all of its content."""
    source = await host.stack.storage["file"].source(_repository(host, vdi), host.get("VDI", vdi, "location"))
    async with host.stack.contents.writing(source) as writer:
        for offset, data in parts.items():
            await writer.write(offset, data)
        await writer.flush()
    return await content(host, vdi)


async def content(host: World, vdi: Ref) -> bytes:
    source = await host.stack.storage["file"].source(_repository(host, vdi), host.get("VDI", vdi, "location"))
    return source.path.read_bytes()


def _repository(host: World, vdi: Ref) -> Any:
    from domzero.toolstack.storage.repositories import attached

    return attached(host.stack, host.get("VDI", vdi, "SR"))[1]


def disks_of(host: World, vm: Ref) -> list[Ref]:
    return [host.get("VBD", vbd, "VDI") for vbd in host.get("VM", vm, "VBDs")]


CONTENT = {0: b"boot", 3 * MIB + 70_000: b"middle" * 1000, 8 * MIB - 5: b"ends!"}


@pytest.mark.parametrize("compression", each(2, ["false", "gzip"]))
async def test_disks_come_back_bit_for_bit(host: World, compression: str) -> None:
    vm = await host.machine(disks=2, cards=1, name_label="original", tags=["a"], other_config={"key": "value"})
    before = [await fill(host, vdi, CONTENT) for vdi in disks_of(host, vm)]
    archive = await exported(host, vm, use_compression=compression)
    (made,) = await import_bytes(host, archive)
    assert [await content(host, vdi) for vdi in disks_of(host, made)] == before
    row, source = host.row("VM", made), host.row("VM", vm)
    same = ("name_label", "tags", "memory_static_max", "VCPUs_max", "PV_args", "platform", "power_state")
    assert {name: row[name] for name in same} == {name: source[name] for name in same}
    assert row["uuid"] != source["uuid"]
    assert row["other_config"]["mac_seed"] != source["other_config"]["mac_seed"]
    assert row["other_config"]["key"] == "value"
    assert row["current_operations"] == {}
    assert "start" in row["allowed_operations"]
    assert host.get("VIF", row["VIFs"][0], "MAC") != host.get("VIF", source["VIFs"][0], "MAC")
    assert host.get("VIF", row["VIFs"][0], "network") == host.get("VIF", source["VIFs"][0], "network")
    await host.call("VM.start", made, False, False)


async def test_zeros_between_are_left_out_and_tar_reads_the_archive(host: World) -> None:
    vm = await host.machine(disks=1)
    await fill(host, disks_of(host, vm)[0], CONTENT)
    archive = await exported(host, vm)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = [member.name for member in tar]
    numbers = [name.split("/")[1] for name in names if "/" in name and "checksum" not in name]
    assert names[0] == "ova.xml"
    assert numbers == ["00000000", "00000003", "00000007"]
    assert len(archive) < 4 * MIB


async def test_everything_is_let_go_of_before_the_task_ends(host: World) -> None:
    vm = await host.machine(disks=1)
    await exported(host, vm)
    (vdi,) = disks_of(host, vm)
    assert host.get("VDI", vdi, "current_operations") == {}
    await host.call("VDI.destroy", vdi)


async def test_snapshots_go_along_and_stay_snapshots(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    old = await fill(host, disks_of(host, vm)[0], {0: b"old"})
    await host.call("VM.snapshot", vm, "a snapshot", [])
    await fill(host, disks_of(host, vm)[0], {0: b"new"})
    (made,) = await import_bytes(host, await exported(host, vm, export_snapshots="true"))
    (snapshot,) = host.get("VM", made, "snapshots")
    assert host.get("VM", made, "parent") == snapshot
    (captured,) = disks_of(host, snapshot)
    assert await content(host, captured) == old
    assert host.get("VDI", captured, "snapshot_of") == disks_of(host, made)[0]
    addresses = [host.get("VIF", host.get("VM", it, "VIFs")[0], "MAC") for it in (made, snapshot)]
    assert addresses[0] == addresses[1]
    await host.call("VM.revert", snapshot)
    assert await content(host, disks_of(host, made)[0]) == old


async def test_a_lone_snapshot_comes_back_as_a_template(host: World) -> None:
    vm = await host.machine(disks=1)
    snapshot = await host.call("VM.snapshot", vm, "a snapshot", [])
    (made,) = await import_bytes(host, await exported(host, snapshot))
    row = host.row("VM", made)
    assert (row["is_a_template"], row["is_a_snapshot"], row["name_label"]) == (True, False, "a snapshot")


async def test_a_suspended_machine_can_stay_suspended(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    archive = await exported(host, vm, preserve_power_state="true")
    (made,) = await import_bytes(host, archive)
    assert host.power_state(made) == "Suspended"
    image = host.get("VM", made, "suspend_VDI")
    assert image != host.get("VM", vm, "suspend_VDI")
    assert (await content(host, image)) == (await content(host, host.get("VM", vm, "suspend_VDI")))
    await host.call("VM.resume", made, False, False)
    assert host.power_state(made) == "Running"
    (halted,) = await import_bytes(host, await exported(host, vm))
    assert host.power_state(halted) == "Halted"


async def test_restore_keeps_who_the_machine_is(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    before = host.row("VM", vm)
    mac = host.get("VIF", before["VIFs"][0], "MAC")
    archive = await exported(host, vm)
    await host.call("VM.destroy", vm)
    (made,) = await import_bytes(host, archive, restore="true")
    assert host.get("VM", made, "uuid") == before["uuid"]
    assert host.get("VIF", host.get("VM", made, "VIFs")[0], "MAC") == mac


async def test_a_description_joins_disks_that_are_here(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    archive = await described(host, ref=vm)
    await host.call("VM.destroy", vm)
    (made,) = await import_description(host, archive, restore="true")
    assert len(disks_of(host, made)) == 1
    assert await import_description(host, archive, dry_run="true") == ()
