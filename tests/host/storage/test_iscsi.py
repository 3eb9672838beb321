"""Units of a real target as disks."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import RemoteImage
from domzero.host.storage import images
from domzero.host.storage.iscsi.driver import IscsiStorage
from domzero.host.storage.protocol import Repository, StorageDriver, StorageError
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, uuid
from tests.host.storage.iscsi_target import IQN, Target, needs_tgt, running_target

pytestmark = needs_tgt
INITIATOR = "iqn.2026-01.org.example:here"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with running_target(tmp_path / "tgtd.log") as target:
        yield target


def there(target: Target, **further: str) -> Repository:
    return Repository(REPOSITORY, {**target.device_config, **further})


async def test_units_are_disks_that_come_go_and_grow(target: Target, tmp_path: Path) -> None:
    driver: StorageDriver = IscsiStorage(INITIATOR)
    here = there(target)
    for lun, size in ((1, 4 * MIB), (300, 8 * MIB)):
        raw(tmp_path / f"{lun}.img", size)
        target.add(lun, tmp_path / f"{lun}.img")
    await driver.create(here, 0)
    await driver.attach(here)
    one, three = await driver.scan(here)
    assert (one.virtual_size, three.virtual_size) == (4 * MIB, 8 * MIB)
    assert (one.sm_config["LUNid"], three.sm_config["LUNid"]) == ("1", "300")
    assert one.location == one.sm_config["SCSIid"]
    assert one.uuid != three.uuid
    assert base64.b64decode(one.xenstore_data["scsi/0x12/0x80"])[:2] == b"\x00\x80"
    assert base64.b64decode(one.xenstore_data["scsi/0x12/0x83"])[:2] == b"\x00\x83"
    assert (await driver.size(here)).physical_size == 12 * MIB

    target.remove(1)
    os.truncate(tmp_path / "300.img", 16 * MIB)
    target.remove(300)
    target.add(300, tmp_path / "300.img")
    target.set(300, "readonly=1")
    (grown,) = await driver.scan(here)
    assert (grown.uuid, grown.virtual_size, grown.read_only) == (three.uuid, 16 * MIB, True)
    assert await driver.update_disk(here, three.location) == grown
    await refused(144, driver.source(here, one.location))
    await driver.detach(here)
    await refused(47, driver.scan(here))


async def test_a_number_that_has_become_another_disk_is_not_given_out(target: Target, tmp_path: Path) -> None:
    driver, here = IscsiStorage(INITIATOR), there(target)
    raw(tmp_path / "a", MIB)
    target.add(1, tmp_path / "a")
    await driver.attach(here)
    (disk,) = await driver.scan(here)
    source = await driver.source(here, disk.location)
    assert isinstance(source.place, RemoteImage)
    assert dict(source.place.options)["lun"] == 1
    target.remove(1)
    target.add(2, tmp_path / "a")
    await refused(144, driver.source(here, disk.location))


async def test_copies_are_read_with_a_password_that_nobody_sees(target: Target, tmp_path: Path) -> None:
    content = os.urandom(MIB)
    raw(tmp_path / "a", MIB, content)
    target.add(1, tmp_path / "a")
    target.want("ann", "secretsecret")
    driver = IscsiStorage(INITIATOR)
    here = there(target, chapuser="ann", chappassword="secretsecret")
    await driver.attach(here)
    (disk,) = await driver.scan(here)
    source = await driver.source(here, disk.location)
    assert "secretsecret" not in repr(source) + str(source.place)
    assert await images.virtual_size(source) == MIB
    copy = tmp_path / "copy"
    copy.touch()
    os.truncate(copy, MIB)
    await images.overwrite_disk(source, copy, lambda _: None)
    assert copy.read_bytes() == content


async def test_logins_that_fail(target: Target) -> None:
    driver = IscsiStorage(INITIATOR)
    await refused(68, driver.attach(there(target, targetIQN="iqn.2026-01.org.example:none")))
    target.want("ann", "secretsecret")
    for credentials in ({}, {"chapuser": "ann", "chappassword": "wrongwrong"}, {"chapuser": "bo", "chappassword": "x"}):
        text = await refused(68, driver.attach(there(target, **credentials)))
        assert "wrongwrong" not in text


async def test_a_target_without_a_name_is_answered_with_a_choice(target: Target) -> None:
    driver = IscsiStorage(INITIATOR)
    target.add_target(2, f"{IQN}2")
    config = {key: value for key, value in target.device_config.items() if key != "targetIQN"}
    with pytest.raises(StorageError) as caught:
        await driver.probe(config, {})
    assert caught.value.number == 96
    assert f"<TargetIQN>{IQN}</TargetIQN>" in caught.value.menu
    assert f"<TargetIQN>{IQN}2</TargetIQN>" in caught.value.menu
    assert await driver.probe(target.device_config, {}) == []
    await refused(96, driver.attach(Repository(REPOSITORY, config)))


async def test_disks_are_made_on_the_target(target: Target) -> None:
    driver = IscsiStorage(INITIATOR)
    here = there(target)
    await driver.attach(here)
    assert await driver.scan(here) == []
    await refused(38, driver.create_disk(here, uuid(1), MIB))
    await refused(38, driver.destroy_disk(here, "x"))
    await driver.destroy(here)
