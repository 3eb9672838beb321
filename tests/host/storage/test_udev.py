"""Drives and removable disks of a host made up for the test: its sysfs, its device files and what it mounts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.protocol import Repository, StorageDriver
from domzero.host.storage.udev.devices import Host
from domzero.host.storage.udev.driver import UdevStorage
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, uuid

CDS = Repository(REPOSITORY, {"location": "/dev/xapi/cd"})
DISKS = Repository(uuid(1), {"location": "/dev/xapi/block"})
USB = "devices/pci0000:00/0000:00:14.0/usb1/1-{port}"


class Machine:
    """A host with nothing plugged in."""

    def __init__(self, root: Path) -> None:
        self.host = Host(root / "sys", root / "dev", root / "proc")
        for directory in (root / "sys/block", root / "dev", root / "proc/self"):
            directory.mkdir(parents=True)
        self.mounts("")

    def mounts(self, text: str) -> None:
        (self.host.process / "self/mountinfo").write_text(f"25 1 0:22 / / rw - ext4 /dev/vda rw\n{text}")

    def swaps(self, device: str) -> None:
        (self.host.process / "swaps").write_text(f"Filename Type Size Used Priority\n{device} partition 1 0 -2\n")

    def plug(self, name: str, where: str, size: int, **files: str) -> Path:
        """A device at a place of the tree; `files` are those of its directory, `device_…` those of its device's."""
        entry = self.host.sysfs / where / "block" / name
        (entry / "device").mkdir(parents=True)
        contents = {"size": str(size // 512), "removable": "0", "ro": "0", "dev": "8:0", **files}
        for file, content in contents.items():
            (entry / file.replace("device_", "device/")).write_text(content + "\n")
        (self.host.sysfs / "block" / name).symlink_to(entry)
        raw(self.host.devices / name, size)
        return entry

    def stick(self, name: str, port: str, size: int = 4 * MIB, serial: str = "", **files: str) -> Path:
        usb = self.host.sysfs / USB.format(port=port)
        usb.mkdir(parents=True, exist_ok=True)
        (usb / "idVendor").write_text("0781\n")
        if serial:
            (usb / "serial").write_text(serial + "\n")
        where = f"{USB.format(port=port)}/1-{port}:1.0/host6/target6:0:0/6:0:0:0"
        return self.plug(name, where, size, device_vendor="Make", device_model="Stick", **files)

    def pull(self, name: str) -> None:
        entry = (self.host.sysfs / "block" / name).resolve()
        (self.host.sysfs / "block" / name).unlink()
        shutil.rmtree(entry)
        (self.host.devices / name).unlink()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def driver(machine: Machine) -> UdevStorage:
    driver: StorageDriver = UdevStorage(machine.host)
    for repository in (CDS, DISKS):
        await driver.create(repository, 0)
        await driver.attach(repository)
        assert await driver.scan(repository) == []
    assert isinstance(driver, UdevStorage)
    return driver


ATA = "devices/pci0000:00/0000:00:1f.2/ata{port}/host{host}/target{host}:0:0/{host}:0:0:0"


async def test_cd_drives_are_listed_empty_or_not(machine: Machine, driver: UdevStorage) -> None:
    machine.plug("sr0", ATA.format(port=1, host=1), MIB, device_vendor="Make", device_model="DVD ", removable="1")
    machine.plug("sr1", ATA.format(port=2, host=2), 0, removable="1")
    full, empty = await driver.scan(CDS)
    assert (full.name, full.virtual_size, full.read_only) == ("Make DVD", MIB, True)
    assert (empty.name, empty.virtual_size) == ("sr1", 0)
    assert await driver.scan(DISKS) == []
    assert await driver.source(CDS, full.location) == DiskSource(machine.host.devices / "sr0", DiskFormat.RAW)
    await refused(456, driver.source(CDS, empty.location))
    machine.pull("sr0")
    machine.plug("sr0", ATA.format(port=1, host=7), 2 * MIB, device_vendor="Make", device_model="DVD", removable="1")
    again = await driver.update_disk(CDS, full.location)
    assert (again.uuid, again.virtual_size) == (full.uuid, 2 * MIB)
    assert (await driver.size(CDS)).physical_size == 2 * MIB


async def test_disks_come_and_go_and_are_known_again(machine: Machine, driver: UdevStorage) -> None:
    machine.plug("sda", "devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0", MIB)
    machine.plug("sdc", "devices/pci0000:00/x", MIB, removable="1", ro="1")
    machine.stick("sdb", "1", serial="S1")
    machine.stick("sdd", "2", size=0)
    stick, card = await driver.scan(DISKS)
    assert (stick.name, stick.virtual_size, stick.read_only) == ("Make Stick", 4 * MIB, False)
    assert stick.sm_config == {"device": str(machine.host.devices / "sdb")}
    assert card.read_only
    machine.pull("sdb")
    assert [disk.location for disk in await driver.scan(DISKS)] == [card.location]
    await refused(144, driver.source(DISKS, stick.location))
    machine.stick("sde", "4", serial="S1")
    moved = await driver.update_disk(DISKS, stick.location)
    assert moved.uuid == stick.uuid
    assert (await driver.source(DISKS, stick.location)).place == machine.host.devices / "sde"


async def test_sticks_that_share_a_number_or_have_none(machine: Machine, driver: UdevStorage) -> None:
    for index, serial in enumerate(("same", "same", "", "", "a/b\n../c\x1b")):
        machine.stick(f"sd{'bcdef'[index]}", str(index), serial=serial)
    found = await driver.scan(DISKS)
    assert len({disk.uuid for disk in found}) == 5
    assert all(disk.location.isprintable() and "/" not in disk.location for disk in found)


def hold(machine: Machine, entry: Path) -> None:
    (entry / "sdb1/holders/dm-0").mkdir(parents=True)
    (entry / "sdb1/partition").write_text("1\n")


def mount(machine: Machine, entry: Path) -> None:
    (entry / "sdb1").mkdir()
    (entry / "sdb1/partition").write_text("1\n")
    (entry / "sdb1/dev").write_text("8:17\n")
    machine.mounts("30 25 8:17 / /media rw - vfat /dev/disk/by-label/x rw\n")


def mount_pool(machine: Machine, entry: Path) -> None:
    machine.mounts("30 25 0:40 / /media rw - btrfs /dev/sdb rw\n")


def swap(machine: Machine, entry: Path) -> None:
    machine.swaps("/dev/sdb")


@pytest.mark.parametrize("use", [hold, mount, mount_pool, swap])
async def test_what_the_host_uses_is_left_out(
    machine: Machine, driver: UdevStorage, use: Callable[[Machine, Path], None]
) -> None:
    entry = machine.stick("sdb", "1")
    (stick,) = await driver.scan(DISKS)
    use(machine, entry)
    assert await driver.scan(DISKS) == []
    await refused(144, driver.source(DISKS, stick.location))


async def test_a_drive_that_hangs_hangs_nobody(machine: Machine) -> None:
    hurried = UdevStorage(machine.host)
    await hurried.attach(CDS)
    hurried._attached[CDS.uuid][1].patience = 0.1  # from now on
    answer = machine.plug("sr0", ATA.format(port=1, host=1), MIB) / "size"
    answer.unlink()
    os.mkfifo(answer)
    await refused(200, hurried.scan(CDS))
    await refused(47, hurried.scan(CDS))
    os.close(os.open(answer, os.O_WRONLY))


async def test_locations_and_refusals(driver: UdevStorage) -> None:
    await refused(94, driver.create(Repository(REPOSITORY, {"location": "/dev"}), 0))
    await refused(38, driver.create_disk(CDS, uuid(2), MIB))
    await refused(38, driver.destroy_disk(CDS, "x"))
    await driver.destroy(CDS)
    await refused(47, driver.scan(CDS))


async def test_this_host() -> None:
    driver = UdevStorage()
    for repository in (CDS, DISKS):
        await driver.attach(repository)
        for disk in await driver.scan(repository):
            assert disk.location
