"""Media at the start of the daemon: missing, slow, and those that every host has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domzero.host.clock import ManualClock
from domzero.host.storage.sim import SimStorage
from domzero.idl.types import Ref
from domzero.toolstack.storage.first_repositories import ensure_repositories
from domzero.toolstack.storage.media import PATIENCE
from tests.toolstack.devices.test_vdi import default_sr, disk, iso_sr
from tests.toolstack.vm.world import DISK, DRIVE, World, world


class Restarts:
    """Hosts one after the other on the same directory and clock; a start that waits gets time on the clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[World]:
        ticking = asyncio.ensure_future(self._tick())
        try:
            async with world(self.directory, database=self.directory / "state.db", clock=self.clock) as running:
                ticking.cancel()
                yield running
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        """One second after the other, as long as the start lasts and somebody waits for time to pass."""
        while True:
            await asyncio.sleep(0.05)
            if self.clock.next_due() is not None:
                await self.clock.advance(1)


@pytest.fixture
def restarts(tmp_path: Path) -> Restarts:
    return Restarts(tmp_path)


async def make_slow(host: World, **faults: str) -> tuple[Ref, Ref, Ref]:
    """Repository, PBD and disk; from the next start on the medium behaves like that."""
    sr = await host.call("SR.create", host.stack.host, {"location": "/sim"}, "0", "slow", "", "file", "", False, {})
    vdi = await host.call("VDI.create", {**DISK, "SR": sr})
    (pbd,) = host.get("SR", sr, "PBDs")
    settings = {f"sim:{key.replace('_', '-')}": value for key, value in faults.items()}
    host.change("PBD", pbd, device_config={"location": "/sim", **settings})
    return str(sr), str(pbd), str(vdi)


async def test_a_server_that_is_down_does_not_delay_the_start(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        sr, pbd, vdi = await make_slow(host, delay_attach="600")
    begun = restarts.clock.monotonic()
    async with restarts.daemon() as host:
        assert restarts.clock.monotonic() - begun < 10 * PATIENCE < 600
        assert not host.get("PBD", pbd, "currently_attached")
        assert await host.fails("VDI.snapshot", vdi, {}) == ("SR_NOT_ATTACHED", sr)
        await disk(host)
        for method, params in (("SR.forget", (sr,)), ("PBD.destroy", (pbd,)), ("PBD.set_device_config", (pbd, {}))):
            refused = asyncio.ensure_future(host.fails(method, *params))
            error = await host.over(refused, 40, step=5)
            assert error[:4] == ("OTHER_OPERATION_IN_PROGRESS", "SR", sr, "plug")
        await host.clock.advance(600)
        await host.settle()
        assert host.get("PBD", pbd, "currently_attached")
        assert host.get("SR", sr, "current_operations") == {}
        assert "snapshot" in host.get("VDI", vdi, "allowed_operations")
        await host.call("VDI.snapshot", vdi, {})


async def test_a_server_that_stays_down_is_given_up(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        sr, pbd, _ = await make_slow(host, delay_attach="600", fail_attach="73 no answer")
    async with restarts.daemon() as host:
        await host.clock.advance(600)
        await host.settle()
        assert not host.get("PBD", pbd, "currently_attached")
        assert host.get("SR", sr, "current_operations") == {}
        assert await host.fails("SR.scan", sr) == ("SR_NOT_ATTACHED", sr)
        failing = asyncio.ensure_future(host.fails("PBD.plug", pbd))
        assert (await host.over(failing, 700, step=100))[:3] == ("SR_BACKEND_FAILURE_73", "", "no answer")


async def test_an_end_of_the_daemon_does_not_wait_for_it(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        await make_slow(host, delay_attach="600")
    async with restarts.daemon():
        pass


async def test_a_medium_that_is_missing_leaves_the_host_usable(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        sr, _, vdi = await make_slow(host, fail_attach="47 pulled out")
        vm = await host.machine(disks=0)
        await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})
    async with restarts.daemon() as host:
        assert await host.fails("VM.start", vm, False, False) == ("VM_REQUIRES_SR", vm, sr)
        await host.call("VM.start", await host.machine(), False, False)
        assert host.power_state(vm) == "Halted"


async def test_one_that_takes_long_to_be_listed(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        sr, pbd, _ = await make_slow(host, delay_scan="600")
    async with restarts.daemon() as host:
        assert host.get("PBD", pbd, "currently_attached")
        assert host.stack.scans.is_running(sr)
        await host.clock.advance(600)
        await host.settle()
        assert not host.stack.scans.is_running(sr)


class Devices(SimStorage):
    """Stands for the driver of a host's own drives."""


async def test_the_repositories_of_an_installed_host(tmp_path: Path) -> None:
    async with world(tmp_path) as host:
        keys = {host.row("SR", sr)["other_config"]["i18n-key"] for sr in host.stack.database.refs("SR")}
        assert keys == {"local-storage", "local-iso-library"}
        for sr in (default_sr(host), iso_sr(host)):
            record = host.row("SR", sr)
            assert record["other_config"]["i18n-original-value-name_label"] == record["name_label"]
            assert record["other_config"]["i18n-original-value-name_description"] == record["name_description"]


async def test_a_host_with_drives_of_its_own_has_repositories_for_them(tmp_path: Path) -> None:
    async with world(tmp_path) as host:
        with host.stack.database.transaction() as transaction:
            for sr in host.stack.database.refs("SR"):
                transaction.destroy("SR", sr)
            transaction.update("pool", host.stack.pool, default_SR="OpaqueRef:NULL")
        devices = Devices(host.clock, tmp_path / "devices")
        host.stack.storage = {**host.stack.storage, "udev": devices}
        await ensure_repositories(host.stack)
        assert {row["name_label"]: facts(row) for row in rows(host) if row["type"] == "udev"} == {
            "DVD drives": ("iso", "local-hotplug-cd", "true", {"location": "/dev/xapi/cd"}),
            "Removable storage": ("disk", "local-hotplug-disk", "true", {"location": "/dev/xapi/block"}),
        }


def rows(host: World) -> list[dict[str, Any]]:
    connections = [row.record for row in host.stack.database.rows("PBD").values()]
    found = []
    for sr in host.stack.database.refs("SR"):
        (config,) = [each["device_config"] for each in connections if each["SR"] == sr]
        found.append({**host.row("SR", sr), "device_config": config})
    return found


def facts(row: dict[str, Any]) -> tuple[Any, ...]:
    config = row["other_config"]
    return row["content_type"], config["i18n-key"], config["auto-scan"], row["device_config"]
