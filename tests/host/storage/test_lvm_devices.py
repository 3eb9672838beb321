"""Which devices the LVM driver takes, and which not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import Extent
from domzero.host.storage.lvm.devices import read_list
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.fill import zero
from domzero.host.storage.protocol import Repository, StorageError
from domzero.host.storage.worker import Workers
from tests.host.storage.disks import MIB, REPOSITORY, refused, tool, uuid
from tests.host.storage.loops import loop_device, lvm, needs_lvm, on, opened

pytestmark = [needs_lvm, pytest.mark.root]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with loop_device(tmp_path / "device") as found:
        yield found


@pytest.mark.slow
async def test_two_devices_are_one_group(tmp_path: Path) -> None:
    driver = LvmStorage(mapped=False)
    with loop_device(tmp_path / "a", 64 * MIB) as first, loop_device(tmp_path / "b", 64 * MIB) as second:
        repository = await opened(driver, on(first, second))
        for number in (1, 2):
            await driver.create_disk(repository, uuid(number), 40 * MIB)
        places = [(await driver.source(repository, uuid(number))).place for number in (1, 2)]
        assert {place.path for place in places if isinstance(place, Extent)} == {first, second}
        found = await driver.probe({"device": f"{first},{second}"}, {})
        assert [sorted(each.devices) for each in found] == [sorted((str(first), str(second)))]
        await driver.detach(repository)
        await refused(47, driver.attach(on(first)))


@pytest.mark.parametrize(
    ("named", "number"),
    [
        ("", 90),
        (" , ", 90),
        ("/dev/nothing-here", 91),
        ("/dev/null", 91),
        ("/etc/passwd", 91),
        ("loop0", 91),
        ("/dev/../dev/null", 91),
        ("/dev/a b", 91),
        ("/dev/x\n--help", 91),
    ],
)
async def test_wrong_devices(named: str, number: int) -> None:
    driver = LvmStorage(mapped=False)
    for call in (driver.create(Repository(REPOSITORY, {"device": named}), 0), driver.probe({"device": named}, {})):
        await refused(number, call)


async def test_a_menu_of_devices_goes_with_the_error(device: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await LvmStorage(mapped=False).probe({}, {})
    assert caught.value.number == 90
    assert f"<path>{device}</path>" in caught.value.menu
    assert "<Devlist>" in caught.value.menu


def test_devices_in_use_are_not_on_the_menu() -> None:
    rows = [
        '{"path": "/dev/sda", "type": "disk", "size": 10, "mountpoints": [null], "vendor": "V ", "serial": "S", "ro": '
        'false, "children": [{"path": "/dev/sda1", "type": "part", "size": 5, "mountpoints": ["/"], "vendor": null, '
        '"serial": null, "ro": false}, {"path": "/dev/sda2", "type": "part", "size": 4, "mountpoints": [null], '
        '"vendor": null, "serial": null, "ro": false}]}',
        '{"path": "/dev/sr0", "type": "rom", "size": 5, "mountpoints": [null], "vendor": null, "serial": null, "ro": '
        "false}",
        '{"path": "/dev/sdb", "type": "disk", "size": 9, "mountpoints": [null], "vendor": "V ", "serial": "S", "ro": '
        "false}",
    ]
    found = list(read_list(f'{{"blockdevices": [{",".join(rows)}]}}'.encode()))
    assert [(each.path, each.size, each.vendor, each.serial) for each in found] == [
        ("/dev/sda2", 4, "", ""),
        ("/dev/sdb", 9, "V", "S"),
    ]
    for nonsense in (b"", b"[]", b'{"blockdevices": [3]}', b'{"blockdevices": [{"path": "/dev/x"}]}'):
        with pytest.raises(StorageError):
            list(read_list(nonsense))


async def test_what_a_device_holds_is_not_written_over(device: Path, tmp_path: Path) -> None:
    driver = LvmStorage(mapped=False)
    tool("mkfs.ext4", "-q", device)
    await refused(55, driver.create(on(device), 0))
    mount = tmp_path / "mount"
    mount.mkdir()
    tool("mount", device, mount)
    try:
        await refused(16, driver.create(on(device, force="true"), 0))
    finally:
        tool("umount", mount)
    await refused(47, driver.attach(on(device)))
    await driver.create(on(device, force="true"), 0)
    await refused(42, driver.create(on(device), 0))
    assert [each.uuid for each in await driver.probe({"device": str(device)}, {})] == [REPOSITORY]


async def test_a_bare_physical_volume_is_taken(device: Path) -> None:
    """It is what a creation that was killed leaves."""
    lvm("pvcreate", device, str(device))
    driver = LvmStorage(mapped=False)
    await driver.create(on(device), 0)
    await driver.destroy(on(device))
    await driver.create(on(device), 0)


@pytest.mark.slow
async def test_a_device_that_vanishes_is_an_error_and_no_disk_is_lost(tmp_path: Path) -> None:
    """Its content, that is: a loop device that is in use stays."""
    driver = LvmStorage(mapped=False)
    gone, kept = tmp_path / "b", tmp_path / "kept"
    with loop_device(tmp_path / "a") as first, loop_device(gone, 64 * MIB) as second:
        repository = await opened(driver, on(first, second))
        await driver.create_disk(repository, uuid(1), 100 * MIB)
        tool("cp", "--sparse=always", gone, kept)
        os.truncate(gone, 0)
        await refused(47, driver.create_disk(repository, uuid(2), MIB))
        await refused(47, driver.resize_disk(repository, uuid(1), 200 * MIB))
        await refused(47, driver.size(repository))
        await driver.detach(repository)
        await refused(47, driver.attach(repository))
        tool("dd", f"if={kept}", f"of={gone}", "conv=sparse,notrunc", "bs=1M", "status=none")
        os.truncate(gone, 64 * MIB)
        await driver.attach(repository)
        assert [disk.uuid for disk in await driver.scan(repository)] == [uuid(1)]
        await driver.detach(repository)


@pytest.fixture
def simple_medium(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files cannot have holes made in them, so that a device on one has to be written to."""
    directory = tmp_path / "ramfs"
    directory.mkdir()
    tool("mount", "-t", "ramfs", "none", directory)
    yield directory
    tool("umount", directory)


@pytest.mark.parametrize("simple", [False, True])
async def test_zeroing_touches_nothing_else(tmp_path: Path, simple_medium: Path, simple: bool) -> None:
    image = (simple_medium if simple else tmp_path) / "image"
    image.write_bytes(b"\xff" * 4 * MIB)
    with loop_device(image, 4 * MIB) as device:
        await zero(Extent(device, MIB, 2 * MIB), 4096, MIB, Workers("device"))
        await zero(device, 3 * MIB, 4 * MIB, Workers("device"))
        content = device.read_bytes()
    ones = b"\xff" * MIB
    assert content == ones + b"\xff" * 4096 + bytes(MIB - 4096) + ones + bytes(MIB)


async def test_zeroing_what_is_gone_is_an_error(tmp_path: Path) -> None:
    await refused(200, zero(tmp_path / "gone", 0, MIB, Workers("device")))
