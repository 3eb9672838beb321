"""The same messages on real qcow2 files."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from domzero.host import process
from domzero.host.storage.files.file import FileStorage
from domzero.idl.types import Ref
from domzero.toolstack.storage.merging import merge_all
from tests.toolstack.config.test_cloning import disks_of
from tests.toolstack.vm.world import DISK, DRIVE, MIB, World


@pytest.fixture
async def sr(host: World, tmp_path: Path) -> Ref:
    """A repository of qcow2 files, the pool's default."""
    host.stack.storage = {**host.stack.storage, "file": FileStorage()}
    directory = tmp_path / "images"
    directory.mkdir()
    config = {"location": str(directory)}
    made = await host.call("SR.create", host.stack.host, config, "0", "images", "", "file", "user", False, {})
    await host.call("pool.set_default_SR", host.stack.pool, made)
    return str(made)


async def image(host: World, vdi: Ref) -> dict[str, Any]:
    """What qemu-img knows of the disk's file."""
    path = host.stack.settings.state_dir / "images" / f"{host.get('VDI', vdi, 'uuid')}.qcow2"
    answer = await process.run(["qemu-img", "info", "--output=json", "-U", str(path)])
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


async def fill(host: World, vdi: Ref, pattern: int) -> None:
    path = host.stack.settings.state_dir / "images" / f"{host.get('VDI', vdi, 'uuid')}.qcow2"
    await process.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 0 1M", str(path)])


async def holds(host: World, vdi: Ref, pattern: int) -> bool:
    path = host.stack.settings.state_dir / "images" / f"{host.get('VDI', vdi, 'uuid')}.qcow2"
    answer = await process.run(["qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} 0 1M", str(path)])
    return b"verification failed" not in answer.stdout.lower()


@pytest.mark.slow
async def test_copies_have_the_content_and_go_their_own_ways(host: World, sr: Ref) -> None:
    vdi = await host.call("VDI.create", {**DISK, "SR": sr, "virtual_size": 64 * MIB})
    await fill(host, vdi, 7)
    clone = await host.call("VDI.clone", vdi, {})
    snapshot = await host.call("VDI.snapshot", vdi, {})
    copy = await host.call("VDI.copy", vdi, sr)
    assert "backing-filename" in await image(host, clone)
    assert "backing-filename" not in await image(host, copy)
    await fill(host, vdi, 9)
    for made in (clone, snapshot, copy):
        assert (await image(host, made))["virtual-size"] == 64 * MIB
        assert await holds(host, made, 7)
    await host.call("VDI.destroy", vdi)
    assert await holds(host, clone, 7)
    await host.call("VDI.resize", clone, 96 * MIB)
    assert (await image(host, clone))["virtual-size"] == 96 * MIB
    for made in (clone, snapshot, copy):
        await host.call("VDI.destroy", made)
    assert list((host.stack.settings.state_dir / "images").glob("*.qcow2")) == []


async def test_machines_are_cloned_by_sharing_and_copied_in_full(host: World, sr: Ref) -> None:
    vm = await host.call("VM.clone", (await host.call("VM.get_by_name_label", "Tiny Linux"))[0], "first")
    await host.call("VM.provision", vm)
    (system,) = disks_of(host, vm)
    await fill(host, system, 5)
    clone = await host.call("VM.clone", vm, "clone")
    copy = await host.call("VM.copy", vm, "copy", sr)
    assert "backing-filename" in await image(host, disks_of(host, clone)[0])
    assert "backing-filename" not in await image(host, disks_of(host, copy)[0])
    for machine in (vm, clone, copy):
        assert await holds(host, disks_of(host, machine)[0], 5)


async def test_a_drive_added_meanwhile_is_not_shared(host: World, sr: Ref) -> None:
    vm = await host.machine(disks=1, cards=0)
    extra = await host.call("VDI.create", {**DISK, "SR": sr, "virtual_size": MIB})
    copying = host.begin("VM.copy", vm, "copy", sr)
    await host.settle()
    await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": extra, "userdevice": "5"})
    assert extra not in disks_of(host, await copying)


@pytest.mark.slow
async def test_layers_that_deleted_snapshots_leave_are_merged(host: World, sr: Ref) -> None:
    vdi = await host.call("VDI.create", {**DISK, "SR": sr, "virtual_size": 64 * MIB})
    for pattern in (3, 4, 5):
        await fill(host, vdi, pattern)
        await host.call("VDI.destroy", await host.call("VDI.snapshot", vdi, {}))
    assert "backing-filename" in await image(host, vdi)
    merging = asyncio.ensure_future(merge_all(host.stack, sr))
    async with asyncio.timeout(60):
        while not merging.done():
            await asyncio.wait({merging}, timeout=0.02)
            await host.clock.advance(1)
    await host.call("SR.scan", sr)
    directory = host.stack.settings.state_dir / "images"
    images = [name for name in await asyncio.to_thread(os.listdir, directory) if name.endswith(".qcow2")]
    assert len(images) <= 2
    assert await holds(host, vdi, 5)
