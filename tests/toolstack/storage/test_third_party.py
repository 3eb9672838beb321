"""The driver in docs/howto-add-a-storage-driver.md is found, works, and leaves nothing half made."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domzero.host.storage.protocol import StorageDriver
from domzero.host.storage.registry import BUILT_IN, Surroundings, make_drivers
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.startup import ensure_drivers
from tests.house.sources import ROOT
from tests.toolstack.vm.world import DISK, MIB, World, world

DOCUMENT = (ROOT / "docs" / "howto-add-a-storage-driver.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[0]
ENTRY = re.search(r"^```toml\n\[project\.entry-points\.\"(?P<group>.*)\"\]\n(?P<line>.*)\n```$", DOCUMENT, re.MULTILINE)
BROKEN = {
    "file": "domzero_shelf:make_driver",
    "other": "domzero_shelf:make_driver",
    "gone": "domzero_no_such_module:make_driver",
}
"""A type that is built in, one that the driver does not call itself, one without a module."""


def install(directory: Path, entries: dict[str, str]) -> None:
    """What an installer leaves of a package with one module."""
    assert ENTRY is not None
    (directory / "domzero_shelf.py").write_text(CODE)
    information = directory / "domzero_shelf-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: domzero-shelf\nVersion: 1.0\n")
    lines = [ENTRY["line"].replace('"', ""), *(f"{name} = {value}" for name, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join([f"[{ENTRY['group']}]", *lines, ""]))


@pytest.fixture
def drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, StorageDriver]:
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, BROKEN)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "domzero_shelf", raising=False)
    importlib.invalidate_caches()
    return make_drivers(Surroundings(tmp_path, tmp_path, tmp_path / "mounts"))


@pytest.fixture
async def host(tmp_path: Path, drivers: dict[str, StorageDriver]) -> AsyncIterator[World]:
    async with world(tmp_path / "host") as running:
        add(running.stack, drivers["shelf"])
        yield running


def add(stack: Stack, driver: StorageDriver) -> None:
    stack.storage = {**stack.storage, "shelf": driver}
    ensure_drivers(stack)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    directory = tmp_path / "shelf"
    directory.mkdir()
    return directory


async def make_repository(host: World, directory: Path) -> Ref:
    config = {"directory": str(directory)}
    return str(await host.call("SR.create", host.stack.host, config, "0", "Shelf", "", "shelf", "", False, {}))


def test_what_cannot_be_used_is_left_out(drivers: dict[str, StorageDriver]) -> None:
    assert drivers["shelf"].info().type == "shelf"
    assert type(drivers["file"]).__module__.startswith("domzero.")
    assert {"other", "gone"}.isdisjoint(drivers)
    assert set(drivers) <= {"shelf", *BUILT_IN}


async def test_the_life_of_a_disk(host: World, shelf: Path) -> None:
    sr = await make_repository(host, shelf)
    assert "shelf" in await host.call("SR.get_supported_types")
    vdi = await host.call("VDI.create", {**DISK, "SR": sr, "virtual_size": str(MIB + 1)})
    uuid = host.get("VDI", vdi, "uuid")
    assert host.get("VDI", vdi, "virtual_size") == MIB + 512
    (shelf / f"{uuid}.raw").write_bytes(b"content" + bytes(MIB + 505))
    await host.call("VDI.resize", vdi, str(2 * MIB))
    copies = [await host.call("VDI.copy", vdi, sr), await host.call("VDI.clone", vdi, {})]
    for copy in copies:
        content = (shelf / f"{host.get('VDI', copy, 'uuid')}.raw").read_bytes()
        assert (content[:7], len(content)) == (b"content", 2 * MIB)
    assert await host.fails("VDI.snapshot", vdi, {}) == ("SR_OPERATION_NOT_SUPPORTED", sr)
    assert host.get("SR", sr, "virtual_allocation") == 6 * MIB
    for disk in (vdi, *copies):
        await host.call("VDI.destroy", disk)
    assert os.listdir(shelf) == []


async def test_a_machine_runs_from_it(host: World, shelf: Path) -> None:
    sr = await make_repository(host, shelf)
    vm = await host.machine(disks=1)
    (vbd,) = host.get("VM", vm, "VBDs")
    vdi = await host.call("VDI.create", {**DISK, "SR": sr})
    host.change("VBD", vbd, VDI=vdi)
    await host.call("VM.start", vm, False, False)
    source = host.hypervisor._domains[host.get("VM", vm, "domid")].disks[0].spec.source
    assert source is not None
    assert source.path == shelf / f"{host.get('VDI', vdi, 'uuid')}.raw"


async def test_machines_are_suspended_to_another_repository(host: World, shelf: Path) -> None:
    sr = await make_repository(host, shelf)
    await host.call("pool.set_suspend_image_SR", host.stack.pool, sr)
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    image = host.get("VM", vm, "suspend_VDI")
    assert host.get("VDI", image, "SR") == host.get("pool", host.stack.pool, "default_SR")


async def test_what_a_killed_daemon_left_goes_with_the_next_plug(host: World, shelf: Path) -> None:
    sr = await make_repository(host, shelf)
    (pbd,) = host.get("SR", sr, "PBDs")
    (shelf / f"{host.stack.database.new_uuid()}.unfinished").write_bytes(b"half")
    await host.call("PBD.unplug", pbd)
    await host.call("PBD.plug", pbd)
    assert os.listdir(shelf) == []


@pytest.mark.parametrize("config", [{}, {"directory": "here"}, {"directory": "/no/such/place"}])
async def test_a_wrong_place_is_told(host: World, config: dict[str, Any]) -> None:
    before = host.stack.database.refs("SR")
    error = await host.fails("SR.create", host.stack.host, config, "0", "Shelf", "", "shelf", "", False, {})
    assert error[0] in ("SR_BACKEND_FAILURE_94", "SR_BACKEND_FAILURE_47")
    assert host.stack.database.refs("SR") == before
