"""Imports and exports at their edges: what follows an archive, large blocks, odd numbers, others beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments
from domzero.host.clock import ManualClock
from domzero.host.contents.protocol import ContentReader, ContentWriter
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.idl.types import VOID, Ref
from domzero.toolstack.transfer.export import export, named_machine
from domzero.toolstack.transfer.import_pages import MACHINES, import_machines
from domzero.toolstack.transfer.import_stream import HELD, BlockMemory, DiskFiller, Target
from domzero.toolstack.transfer.manifest import objects_of
from domzero.toolstack.transfer.progress import Progress
from domzero.wire.xva.checksums import SHA1, checksum
from domzero.wire.xva.manifest import decode_manifest
from domzero.wire.xva.model import MAX_BLOCK, Block, Manifest
from tests.toolstack.devices.test_vdi import default_sr
from tests.toolstack.transfer.peers import MemoryPeer, ask, import_bytes, import_description
from tests.toolstack.transfer.test_machines_export import SlowPeer, full
from tests.toolstack.transfer.test_machines_fuzz import archive
from tests.toolstack.transfer.test_machines_import import changed, failed, in_the_middle, nothing_left
from tests.toolstack.transfer.test_machines_round_trip import described, disks_of
from tests.toolstack.vm.world import MIB, World
from tests.xva_writer import Machine, machine, manifest, xva


async def test_a_client_that_leaves_behind_the_archives_end_has_sent_it_all(host: World) -> None:
    """Tapes are padded; the archive is whole without."""
    whole = xva(machine("web", {"0": b"content"}))
    peer = MemoryPeer(whole + bytes(4 * MIB), piece=64 << 10, leaves_after=len(whole) + MIB)
    (vm,) = await ask(host, import_machines, peer, MACHINES)
    assert peer.taken > len(whole)
    assert host.get("VM", vm, "current_operations") == {}


class StuckWriter:
    """Implements `ContentWriter` as a medium that has stopped: nothing that it began ends before it may go on."""

    def __init__(self) -> None:
        self.size = 1 << 40
        self.held = 0
        self.most = 0
        self.on = asyncio.Event()

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.held += len(data)
        self.most = max(self.most, self.held)
        await self.on.wait()
        self.held -= len(data)

    async def zero(self, offset: int, length: int) -> None:
        await self.on.wait()

    async def flush(self) -> None:
        await self.on.wait()


class StuckContents:
    """Implements `DiskContents` with one disk, which can only be written."""

    def __init__(self) -> None:
        self.writer = StuckWriter()

    @asynccontextmanager
    async def reading(self, source: DiskSource) -> AsyncIterator[ContentReader]:
        raise NotImplementedError(source)
        yield

    @asynccontextmanager
    async def writing(self, source: DiskSource) -> AsyncIterator[ContentWriter]:
        yield self.writer


@pytest.mark.parametrize("size", [MIB, MAX_BLOCK])
async def test_blocks_of_any_size_take_no_more_memory(tmp_path: Any, size: int) -> None:
    contents, memory = StuckContents(), BlockMemory()
    targets = {"Ref:0": Target(DiskSource(tmp_path / "disk", DiskFormat.RAW), 1 << 40)}
    progress = Progress(lambda _: None, ManualClock(), 1)
    filler = DiskFiller(contents, targets, frozenset(), progress, memory, force=False)

    async def feed() -> None:
        for number in range(2 * HELD // size):
            data = memory.take(size)
            data[:] = bytes([1 + number]) * size
            await filler.take(Block("Ref:0", number, number * size, data, checksum(SHA1, data)))

    feeding = asyncio.ensure_future(feed())
    try:
        async with asyncio.timeout(20):
            while contents.writer.held < HELD:  # noqa: ASYNC110 - threads check the blocks meanwhile
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert not feeding.done()
        contents.writer.on.set()
        await feeding
        with pytest.raises(ApiError, match="PREMATURE_EOF"):  # of a disk of a tebibyte a little came
            await filler.finish()
    finally:
        await filler.close()
    assert contents.writer.most == HELD


async def test_the_repository_may_be_looked_at_while_disks_are_filled(host: World) -> None:
    async def look(vm: Ref) -> None:
        assert host.get("SR", default_sr(host), "current_operations") == {}
        await host.call("SR.scan", default_sr(host))
        (vdi,) = disks_of(host, vm)
        (pbd,) = host.get("SR", default_sr(host), "PBDs")
        refused = asyncio.ensure_future(host.fails("PBD.unplug", pbd))
        assert (await host.over(refused, 60))[:3] == ("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi)

    task = await in_the_middle(host, xva(machine("web", {"0": b"\x01" * (3 * MIB)})), look)
    (vm,) = await task
    assert len(disks_of(host, vm)) == 1


async def test_the_task_of_an_import_says_how_far_it_is(host: World) -> None:
    moments: Iterator[int] = iter(range(1_000_000))
    clock: Any = host.stack.clock
    clock.monotonic = lambda: float(next(moments))
    seen: list[float] = []

    async def wait(taken: int) -> None:
        if taken >= 6 * MIB and not seen:
            (vm,) = await host.call("VM.get_by_name_label", "web")
            (task,) = host.get("VM", vm, "current_operations")
            seen.append(host.get("task", task, "progress"))

    await ask(host, import_machines, MemoryPeer(xva(machine("web", {"0": b"\x01" * (8 * MIB)})), wait=wait), MACHINES)
    assert 0.4 <= seen[0] <= 0.75


async def test_the_task_of_an_export_says_how_far_it_is(host: World) -> None:
    vm = await full(host)
    moments: Iterator[int] = iter(range(1_000_000))
    clock: Any = host.stack.clock
    clock.monotonic = lambda: float(next(moments))
    peer = SlowPeer(stops_after=4 * MIB)
    task = asyncio.ensure_future(ask(host, export, peer, VOID, ref=vm))
    await asyncio.wait_for(peer.stopped.wait(), 60)
    assert 0.2 <= host.get("task", peer.headers["task-id"], "progress") <= 0.75
    peer.on.set()
    await task


async def test_control_domains_are_not_brought_along(host: World) -> None:
    await host.machine(disks=0, name_label="a guest")
    (own,) = (ref for ref, row in host.stack.database.rows("VM").items() if row.record["is_control_domain"])
    everything = await described(host, all="true", include_dom0="true")
    before = set(host.stack.database.refs("VM"))
    made = await import_description(host, everything, restore="true", force="true")
    assert "a guest" in {host.get("VM", vm, "name_label") for vm in made}
    assert own in set(host.stack.database.refs("VM"))
    assert not any(host.get("VM", vm, "name_label").startswith("Control domain") for vm in made)
    assert len(set(host.stack.database.refs("VM"))) == len(before)


def test_devices_of_control_domains_are_left_out_too() -> None:
    found = decode_manifest(
        manifest([
            ("VM", "Ref:0", {"is_control_domain": True}), ("VM", "Ref:1", {"is_control_domain": False}),
            ("VBD", "Ref:2", {"VM": "Ref:0"}), ("VBD", "Ref:3", {"VM": "Ref:1"}), ("VIF", "Ref:4", {"VM": "Ref:0"}),
        ])
    )  # fmt: skip
    assert isinstance(found, Manifest)
    assert list(objects_of(GRAPH, found)) == ["Ref:1", "Ref:3"]


async def test_an_empty_reference_names_nothing(host: World) -> None:
    vm = await host.machine()
    assert named_machine(host.stack, Arguments({"ref": "", "uuid": host.get("VM", vm, "uuid")})) == vm


def with_further(objects: list[tuple[str, str, Mapping[str, Any]]], source: Machine | None = None) -> bytes:
    made = source or machine("web", {"0": b"content"})
    return xva(replace(made, objects=[*made.objects, *objects]))


async def test_two_machines_that_would_be_the_same_one(host: World) -> None:
    made = machine("web", {"0": b"content"})
    (record,) = (snapshot for cls, _, snapshot in made.objects if cls == "VM")
    twin = {**record, "VBDs": [], "VIFs": [], "other_config": {}}
    async with nothing_left(host):
        error = await failed(host, with_further([("VM", "Ref:70", twin)], made), restore="true")
        assert error == ("IMPORT_ERROR", f"Two machines of the archive have the uuid {record['uuid']}.")
    assert len(await import_bytes(host, with_further([("VM", "Ref:70", twin)], made))) == 2


async def test_networks_that_no_card_is_in_are_not_made(host: World) -> None:
    before = set(host.stack.database.refs("network"))
    await import_bytes(host, with_further([("network", "Ref:70", {"name_label": "nobody's", "bridge": "xapi99"})]))
    assert set(host.stack.database.refs("network")) == before


async def test_a_flood_of_networks_is_refused(host: World) -> None:
    flood: list[tuple[str, str, Mapping[str, Any]]] = []
    for number in range(144):
        vm, first = f"Ref:{1000 + number}", 10_000 + 20 * number
        flood.append(("VM", vm, {"memory_static_max": "1000", "memory_dynamic_max": "1000", "VCPUs_max": "1",
                                 "memory_dynamic_min": "1000", "VCPUs_at_startup": "1"}))  # fmt: skip
        for device in range(7):
            flood.append(("network", f"Ref:{first + device}", {"name_label": f"{first + device}"}))
            card = {"VM": vm, "network": f"Ref:{first + device}", "device": str(device)}
            flood.append(("VIF", f"Ref:{first + 10 + device}", card))
    async with nothing_left(host):
        error = await failed(host, with_further(flood))
    assert error == ("IMPORT_ERROR", "The archive brings more than 1000 networks that are not here.")


async def test_more_disks_than_an_archive_can_have_are_not_made(host: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domzero.toolstack.transfer.import_plan.MAX_DISKS", 1)
    async with nothing_left(host):
        error = await failed(host, xva(machine("web", {"0": b"one", "1": b"another"})))
    assert error == ("IMPORT_ERROR", "The archive describes more than 1 disks.")
    assert await import_bytes(host, xva(machine("web", {"0": b"one"})))


async def test_a_multiplier_beyond_all_reason(host: World) -> None:
    (vm,) = await import_bytes(host, changed("VM", {"HVM_shadow_multiplier": 1e308}))
    assert int(await host.call("VM.compute_memory_overhead", vm)) > 0
    assert int(await host.call("VM.maximise_memory", vm, 1 << 34, True)) >= 0


async def test_saved_memory_of_an_absurd_size(host: World) -> None:
    """No file system here has files of a pebibyte, and if it had, as much would have to come."""
    image = {"name_label": "memory", "virtual_size": str(1 << 50), "type": "suspend", "SR": "Ref:4"}
    asleep = machine("web", {"0": b"content"}, vm={"power_state": "Suspended", "suspend_VDI": "Ref:50"})
    async with nothing_left(host):
        code = (await failed(host, archive(Machine([*asleep.objects, ("VDI", "Ref:50", image)], asleep.disks))))[0]
    assert code in ("IMPORT_ERROR", "IMPORT_ERROR_PREMATURE_EOF")
