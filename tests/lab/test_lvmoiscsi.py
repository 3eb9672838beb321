"""Logical volumes on a unit of a real target (tgt), by the kernel's initiator (open-iscsi)."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.storage.iscsi.initiator import Initiator
from domzero.host.storage.iscsi.scsi import Unit
from domzero.host.storage.iscsi.session import survey
from domzero.host.storage.iscsi.settings import read_settings
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.over_iscsi import lvm_over_iscsi
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import MIB, raw, refused, uuid
from tests.host.storage.iscsi_target import IQN, Target, running_target
from tests.host.storage.loops import read, write

HERE = "iqn.2026-01.org.example:lab"
SESSIONS = Path("/sys/class/iscsi_session")
DATABASE = Path("/etc/iscsi")


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    Path("/run/tgtd").mkdir(exist_ok=True)
    with running_target(tmp_path / "tgtd.log") as target:
        for lun in (1, 2):
            raw(tmp_path / f"{lun}.img", 256 * MIB)
            target.add(lun, tmp_path / f"{lun}.img")
        yield target
        left = sessions()
        for command in ("vgchange --activate n", "iscsiadm -m node --logout", "iscsiadm -m node --op delete"):
            subprocess.run(command.split(), check=False, capture_output=True, timeout=120)
        assert left == [], "a session was left"


def sessions() -> list[str]:
    """The interfaces of the kernel's sessions."""
    return sorted((path / "ifacename").read_text().strip() for path in SESSIONS.glob("session*"))


def records() -> list[Path]:
    return [path for path in (DATABASE / "nodes").glob(f"{IQN}/**/*") if path.is_file()]


async def units(target: Target) -> dict[int, Unit]:
    return {unit.lun: unit for unit in await survey(read_settings(target.device_config, HERE))}


async def there(target: Target, lun: int = 1, **more: str) -> Repository:
    scsi_id = (await units(target))[lun].scsi_id
    return Repository(uuid(100 + lun), {**target.device_config, "SCSIid": scsi_id, **more})


async def test_disks_on_a_unit(target: Target) -> None:
    driver = lvm_over_iscsi(HERE)
    here = await there(target)
    await driver.create(here, 0)
    assert sessions() == []
    await driver.attach(here)
    assert len(sessions()) == 1
    await driver.create_disk(here, uuid(1), 16 * MIB)
    source = await driver.source(here, uuid(1))
    write(source, 0, b"kept")
    await driver.resize_disk(here, uuid(1), 32 * MIB)
    await driver.detach(here)
    await driver.detach(here)
    assert (sessions(), records()) == ([], [])
    assert [found.uuid for found in await driver.probe(here.device_config, {})] == [here.uuid]
    assert sessions() == []
    await driver.attach(here)
    again = lvm_over_iscsi(HERE)
    await refused(16, again.attach(here))
    assert [(disk.uuid, disk.virtual_size) for disk in await driver.scan(here)] == [(uuid(1), 32 * MIB)]
    assert read(await driver.source(here, uuid(1)), 0, 5) == b"kept\0"
    assert 240 * MIB < (await driver.size(here)).physical_size < 256 * MIB
    await driver.destroy_disk(here, uuid(1))
    await driver.destroy(here)
    assert sessions() == []
    assert await driver.probe(here.device_config, {}) == []


async def test_a_daemon_that_comes_back_finds_its_session(target: Target) -> None:
    """It was killed, its machines were not."""
    initiator = Initiator()
    first = lvm_over_iscsi(HERE, initiator)
    here = await there(target)
    await first.create(here, 0)
    await first.attach(here)
    for lock in [*initiator._held.values(), *(group.lock for group in first._groups.values())]:
        os.close(lock)
    second = lvm_over_iscsi(HERE)
    await second.attach(here)
    assert len(sessions()) == 1
    await second.detach(here)


async def test_repositories_on_one_target_share_its_session(target: Target) -> None:
    driver = lvm_over_iscsi(HERE)
    both = [await there(target, lun) for lun in (1, 2)]
    for here in both:
        await driver.create(here, 0)
        await driver.attach(here)
        await driver.create_disk(here, uuid(1), 4 * MIB)
    assert len(sessions()) == 1
    await driver.detach(both[0])
    assert len(sessions()) == 1
    write(await driver.source(both[1], uuid(1)), 0, b"still there")
    await driver.detach(both[1])


async def test_menus(target: Target) -> None:
    driver = lvm_over_iscsi(HERE)
    config = target.device_config
    for missing, number, words in (("targetIQN", 96, IQN), ("SCSIid", 107, (await units(target))[1].scsi_id)):
        with pytest.raises(StorageError) as caught:
            await driver.probe({key: value for key, value in config.items() if key != missing}, {})
        assert caught.value.number == number
        assert words in caught.value.menu
    await refused(95, driver.probe({}, {}))
    await refused(107, driver.create(Repository(uuid(100), {**config, "SCSIid": "3600000"}), 0))


async def test_secrets_are_in_files_that_only_root_can_read(target: Target) -> None:
    target.want("someone", "twelve-letters")
    target.admin("--op", "new", "--mode", "account", "--user", "disks", "--password", "other-letters")
    target.admin("--op", "bind", "--mode", "account", "--tid", "1", "--user", "disks", "--outgoing")
    driver = lvm_over_iscsi(HERE)
    chap = {"chapuser": "someone", "chappassword": "twelve-letters"}
    mutual = {"incoming_chapuser": "disks", "incoming_chappassword": "other-letters"}
    found = await survey(read_settings({**target.device_config, **chap}, HERE))
    config = {**target.device_config, "SCSIid": next(unit.scsi_id for unit in found if unit.lun == 1), **chap, **mutual}
    here = Repository(uuid(101), config)
    await driver.create(here, 0)
    await driver.attach(here)
    (record,) = records()
    assert "twelve-letters" in record.read_text()
    assert "other-letters" in record.read_text()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    await driver.detach(here)
    assert records() == []
    await refused(68, driver.attach(Repository(here.uuid, {**config, "chappassword": "wrong-letters"})))
    await refused(68, driver.attach(Repository(here.uuid, {**config, "incoming_chappassword": "wrong-letters"})))
    await refused(20, driver.attach(Repository(here.uuid, {**config, "incoming_chappassword": ""})))
    assert records() == []


async def test_the_operators_sessions_are_not_ours(target: Target) -> None:
    portal = f"127.0.0.1:{target.port}"
    run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal)
    run("iscsiadm", "-m", "node", "-T", IQN, "-p", portal, "--login")
    try:
        driver: LvmStorage = lvm_over_iscsi(HERE)
        here = await there(target)
        await driver.create(here, 0)
        await driver.attach(here)
        assert len(sessions()) == 2
        await driver.create_disk(here, uuid(1), 4 * MIB)
        await driver.detach(here)
        assert sessions() == ["default"]
        assert len(records()) == 1
    finally:
        run("iscsiadm", "-m", "node", "-T", IQN, "-p", portal, "--logout")
        run("iscsiadm", "-m", "node", "-T", IQN, "-p", portal, "--op", "delete")
