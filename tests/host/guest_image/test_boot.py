"""Tiny Linux on a real QEMU: every proof that other tests rely on is shown here once, by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host import process
from domzero.host.guest_image import GuestImage, build, console
from tests.host.guest_image.machine import bare_machine

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]


@pytest.fixture
async def image(tmp_path: Path) -> GuestImage:
    return await build(tmp_path / "image")


@pytest.fixture
async def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    await process.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"])
    return path


async def test_boot_tick_and_power_button(tmp_path: Path, image: GuestImage, disk: Path) -> None:
    async with bare_machine(tmp_path, image, disk, arguments=console.TICK_ARGUMENT) as machine:
        log = await machine.until(lambda log: len(console.ticks(log)) >= 3)
        assert console.values(log, "kernel") == [image.version]
        assert console.values(log, "boots") == ["1"]
        assert console.values(log, "cpus") == ["1"]
        assert console.ticks(log)[:3] == [1, 2, 3]
        await machine.until(lambda log: console.values(log, "address"))
        shutdown = await machine.event_after("SHUTDOWN", lambda: machine.qmp.execute("system_powerdown"))
        assert shutdown == {"guest": True, "reason": "guest-shutdown"}


async def test_the_disk_survives_reboots_and_memory_does_not(tmp_path: Path, image: GuestImage, disk: Path) -> None:
    async with bare_machine(tmp_path, image, disk) as machine:
        first = await machine.until_ready()
        ended = await machine.event_after("SHUTDOWN", lambda: machine.press("ctrl", "alt", "delete"))
        assert ended == {"guest": True, "reason": "guest-reset"}
    async with bare_machine(tmp_path, image, disk) as machine:
        second = await machine.until_ready()
    assert console.values(first, "boots") == ["1"]
    assert console.values(second, "boots") == ["2"]
    assert console.values(first, "boot_id") != console.values(second, "boot_id")


async def test_login_hot_plug_and_panic(tmp_path: Path, image: GuestImage, disk: Path) -> None:
    async with bare_machine(tmp_path, image, disk) as machine:
        await machine.until_text("tiny login: ")
        await machine.type("root")
        await machine.until_text("tiny# ")
        await machine.type("echo told=$(id -u)-$(mount -t ext4 | cut -d ' ' -f 3)")
        await machine.until_text("told=0-/data")
        card = {"driver": "virtio-net-pci", "netdev": "net2", "id": "nic2", "bus": "spare", "mac": "52:54:00:00:00:09"}
        await machine.qmp.execute("netdev_add", {"type": "user", "id": "net2"})
        await machine.qmp.execute("device_add", card)
        await machine.until_text("tiny: nic eth1 added mac=52:54:00:00:00:09")
        await machine.qmp.execute("device_del", {"id": "nic2"})
        await machine.until_text("tiny: nic eth1 removed")
        panicked = await machine.event_after("GUEST_PANICKED", lambda: machine.press("alt", "sysrq", "c"))
        assert panicked["action"] in ("pause", "poweroff", "shutdown")
        await machine.until_text("Kernel panic - not syncing: sysrq triggered crash")
