"""Exports that are watched, stopped, or cannot be."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass, field
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.exchange import RequestError
from domzero.idl.types import VOID, Ref
from domzero.toolstack.transfer.export import chosen_compression, export, export_metadata
from domzero.toolstack.transfer.export_stream import SILENCE
from tests.toolstack.devices.test_vdi import disk, disturb
from tests.toolstack.transfer.peers import MemoryPeer, ask, import_bytes, import_description
from tests.toolstack.transfer.test_machines_import import nothing_left
from tests.toolstack.transfer.test_machines_round_trip import described, disks_of, exported, fill
from tests.toolstack.vm.world import DRIVE, MIB, World


async def full(host: World) -> Ref:
    vm = await host.machine(disks=1, cards=0)
    await fill(host, disks_of(host, vm)[0], {0: b"\x01" * (8 * MIB)})
    return vm


async def classes_of(host: World, archive: bytes) -> dict[str, int]:
    """How many cards and drives, and how many disks in all, importing makes."""
    before = {cls: len(host.stack.database.refs(cls)) for cls in ("VIF", "VBD", "VDI")}
    await import_bytes(host, archive)
    return {cls: len(host.stack.database.refs(cls)) - count for cls, count in before.items()}


async def test_devices_stay_behind_that_are_not_wanted(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    for words, made in (
        ("", {"VIF": 1, "VBD": 1, "VDI": 1}),
        ("vif", {"VIF": 0, "VBD": 1, "VDI": 1}),
        ("VBD, vtpm", {"VIF": 1, "VBD": 0, "VDI": 0}),
        ("vbd,vif", {"VIF": 0, "VBD": 0, "VDI": 0}),
    ):
        assert await classes_of(host, await exported(host, vm, excluded_device_types=words)) == made
    with pytest.raises(ApiError, match="vusb"):
        await exported(host, vm, excluded_device_types="disks")


@dataclass
class SlowPeer(MemoryPeer):
    """Stops to listen after so many bytes, until it is told to go on."""

    stops_after: int = 2 * MIB
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    on: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await super().write(data)
        if len(self.received) > self.stops_after:
            self.stopped.set()
            await self.on.wait()


async def test_while_it_is_exported_a_machine_and_its_disks_are_held(host: World) -> None:
    vm = await full(host)
    (vdi,) = disks_of(host, vm)
    peer = SlowPeer()
    task = asyncio.ensure_future(ask(host, export, peer, VOID, ref=vm))
    await asyncio.wait_for(peer.stopped.wait(), 60)
    assert list(host.get("VM", vm, "current_operations").values()) == ["export"]
    assert "start" not in host.get("VM", vm, "allowed_operations")
    assert "destroy" not in host.get("VDI", vdi, "allowed_operations")
    assert peer.headers["task-id"] in host.get("VM", vm, "current_operations")
    # Others may be exported and copied beside.
    await host.call("VM.copy", vm, "beside", "OpaqueRef:NULL")
    assert len(await exported(host, vm)) > 8 * MIB
    peer.on.set()
    await task
    assert host.get("VM", vm, "current_operations") == {}
    await host.call("VDI.destroy", vdi)


async def test_an_export_that_is_cancelled_lets_everything_go(host: World) -> None:
    vm = await full(host)
    peer = SlowPeer()
    async with nothing_left(host):
        task = asyncio.ensure_future(ask(host, export, peer, VOID, ref=vm))
        await asyncio.wait_for(peer.stopped.wait(), 60)
        await host.call("task.cancel", peer.headers["task-id"])
        with pytest.raises(ApiError, match="TASK_CANCELLED"):
            await task


async def test_a_client_that_goes_away_during_an_export(host: World) -> None:
    vm = await full(host)
    async with nothing_left(host):
        with pytest.raises(ApiError):
            await ask(host, export, MemoryPeer(leaves_after=3 * MIB), VOID, ref=vm)


async def test_a_disk_that_cannot_be_read_is_said_before_the_head(host: World) -> None:
    vm = await full(host)
    disturb(host, fail_source="46 gone")
    peer = MemoryPeer()
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_46"):
        await ask(host, export, peer, VOID, ref=vm)
    assert peer.status is None
    assert host.get("VM", vm, "current_operations") == {}


async def test_power_states_and_names(host: World) -> None:
    vm = await host.machine(disks=1)
    await host.call("VM.start", vm, False, False)
    for query, code in (
        ({"ref": vm}, "VM_BAD_POWER_STATE"),
        ({"ref": "OpaqueRef:nothing"}, "HANDLE_INVALID"),
        ({"uuid": "nothing"}, "UUID_INVALID"),
    ):
        with pytest.raises(ApiError, match=code):
            await ask(host, export, MemoryPeer(), VOID, **query)
    # The description of a running machine may be had; it is halted in there.
    (made,) = await import_description(host, await described(host, ref=vm))
    assert host.power_state(made) == "Halted"


def test_compressions() -> None:
    chosen = {word: chosen_compression(word) for word in ("", "false", "true", "gzip", "zstd", "ZSTD")}
    assert list(chosen.values()) == ["none", "none", "gzip", "gzip", "zstd", "zstd"]
    with pytest.raises(RequestError):
        chosen_compression("bzip2")


async def test_long_stretches_of_zeros_keep_the_client_awake(host: World) -> None:
    """A disk full of written zeros: what is left out takes time all the same."""
    vm = await host.machine(disks=1, cards=0)
    await fill(host, disks_of(host, vm)[0], {0: bytes(8 * MIB)})
    plain = len(await exported(host, vm))
    moments = iter(range(0, 1_000_000, int(SILENCE)))
    clock: Any = host.stack.clock
    clock.monotonic = lambda: float(next(moments))
    slow = len(await exported(host, vm))
    assert plain < 3 * MIB
    assert slow > 7 * MIB


async def test_descriptions_of_disks_that_are_not_here(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    archive = await described(host, ref=vm)
    (vdi,) = disks_of(host, vm)
    uuid, sr = host.get("VDI", vdi, "uuid"), host.get("VDI", vdi, "SR")
    location = host.get("VDI", vdi, "location")
    await host.call("VM.destroy", vm)
    await host.call("VDI.destroy", vdi)
    with pytest.raises(ApiError) as caught:
        await import_description(host, archive)
    assert caught.value.description == ("VDI_LOCATION_MISSING", sr, location)
    (bare,) = await import_description(host, archive, force="true")
    assert host.get("VM", bare, "VBDs") == ()
    other = await full(host)
    (substitute,) = disks_of(host, other)
    named = {f"vdi:{uuid}": host.get("VDI", substitute, "uuid")}
    (made,) = await import_description(host, archive, **named)
    assert disks_of(host, made) == [substitute]
    with pytest.raises(ApiError, match="UUID_INVALID"):
        await import_description(host, archive, **{f"vdi:{uuid}": "nothing"})


async def test_a_disk_that_somebody_writes_to_is_not_exported_with_a_machine_that_sleeps(host: World) -> None:
    shared = await disk(host, sharable=True)
    machines = [await host.machine(disks=0, cards=0) for _ in range(2)]
    for vm in machines:
        await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": shared, "userdevice": "0"})
        await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", machines[0])
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await exported(host, machines[0])
    await host.call("VM.suspend", machines[1])
    assert await exported(host, machines[0])


async def test_a_description_is_compressed_where_that_is_wanted(host: World) -> None:
    vm = await host.machine()
    plain, packed = MemoryPeer(), MemoryPeer()
    await ask(host, export_metadata, plain, VOID, ref=vm)
    await ask(host, export_metadata, packed, VOID, ref=vm, use_compression="gzip")
    assert plain.promised == len(plain.received)
    assert packed.promised is None
    assert gzip.decompress(packed.received) == bytes(plain.received)
