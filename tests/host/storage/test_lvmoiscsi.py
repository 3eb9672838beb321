"""What LVM over iSCSI shows without an initiator in the kernel: menus, errors, records; tests/lab has the rest."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.storage.iscsi import records
from domzero.host.storage.iscsi.initiator import Initiator
from domzero.host.storage.iscsi.settings import Chap, IscsiSettings, read_settings
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.over_iscsi import host_mark, incoming_of, lvm_over_iscsi
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused
from tests.host.storage.iscsi_target import IQN, Target, needs_tgt, running_target

HERE = "iqn.2026-01.org.example:here"
SECRET = "twelve-letters"

RECORD = """# BEGIN RECORD 2.1.8
node.name = iqn.2026-01.org.example:disks
node.startup = automatic
iface.iscsi_ifacename = NAME
node.session.auth.authmethod = None
node.session.auth.username = somebody
node.session.auth.password_in = old
node.conn[0].address = 127.0.0.1
# END RECORD
"""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with running_target(tmp_path / "tgtd.log") as target:
        for lun in (1, 2):
            raw(tmp_path / f"{lun}.img", 4 * MIB)
            target.add(lun, tmp_path / f"{lun}.img")
        yield target


@pytest.fixture
def driver(tmp_path: Path) -> LvmStorage:
    """On a kernel without initiator."""
    return lvm_over_iscsi(HERE, Initiator(database=tmp_path, transports=tmp_path / "none"))


@needs_tgt
async def test_menus_lead_to_a_unit(driver: LvmStorage, target: Target) -> None:
    config = target.device_config
    await refused(95, driver.probe({}, {}))
    with pytest.raises(StorageError) as caught:
        await driver.probe({key: value for key, value in config.items() if key != "targetIQN"}, {})
    assert caught.value.number == 96
    assert f"<TargetIQN>{IQN}</TargetIQN>" in caught.value.menu
    with pytest.raises(StorageError) as caught:
        await driver.probe(config, {})
    assert caught.value.number == 107
    assert caught.value.menu.count("<LUN>") == 2
    scsi_id = caught.value.menu.partition("<SCSIid>")[2].partition("</SCSIid>")[0]
    said = await refused(71, driver.probe({**config, "SCSIid": scsi_id}, {}))
    assert "kernel has no iSCSI initiator" in said
    here = Repository(REPOSITORY, {**config, "LUNid": "2"})
    await refused(71, driver.create(here, 0))
    await refused(71, driver.attach(here))
    await driver.detach(here)


@needs_tgt
async def test_units_that_are_not_there(driver: LvmStorage, target: Target) -> None:
    for wrong in ({"SCSIid": "3600"}, {"LUNid": "0"}, {"LUNid": "x"}):
        await refused(107, driver.probe({**target.device_config, **wrong}, {}))
    await refused(142, driver.probe({**target.device_config, "port": "70000"}, {}))
    await refused(141, driver.probe({**target.device_config, "port": "1"}, {}))


def test_a_record_has_the_credentials_that_are_wanted_and_no_others() -> None:
    text = records.with_credentials(RECORD, Chap("me", SECRET), Chap("disks", "other"))
    lines = text.splitlines()
    assert lines[-1] == "# END RECORD"
    for wanted in (
        "node.startup = manual",
        "node.session.auth.authmethod = CHAP",
        "node.session.auth.username = me",
        f"node.session.auth.password = {SECRET}",
        "node.session.auth.username_in = disks",
        "node.session.auth.password_in = other",
        "node.conn[0].address = 127.0.0.1",
    ):
        assert lines.count(wanted) == 1
    assert "somebody" not in text
    assert "automatic" not in text
    bare = records.with_credentials(text, None, None)
    assert "node.session.auth.authmethod = None" in bare.splitlines()
    assert not any(word in bare for word in ("username", "password", SECRET))
    assert records.with_credentials(bare, None, None).splitlines() == bare.splitlines()


@pytest.mark.parametrize("layout", ["127.0.0.1,3260", "127.0.0.1,3260,1/ours"])
def test_only_our_record_is_changed_and_only_root_can_read_it(tmp_path: Path, layout: str) -> None:
    chap = {"chapuser": "me", "chappassword": SECRET}
    settings = read_settings({"target": "127.0.0.1", "targetIQN": IQN, **chap}, HERE)
    assert SECRET not in repr(settings)
    ours, theirs = tmp_path / "nodes" / IQN / layout, tmp_path / "nodes" / IQN / "10.0.0.1,3260,1/default"
    for path, name in ((ours, records.interface_name(settings)), (theirs, "default")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECORD.replace("NAME", name))
    records.write_credentials(tmp_path, settings, None)
    assert SECRET in ours.read_text()
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    assert theirs.read_text() == RECORD.replace("NAME", "default")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_no_record_is_an_error(tmp_path: Path) -> None:
    settings = read_settings({"target": "127.0.0.1", "targetIQN": IQN}, HERE)
    with pytest.raises(StorageError) as caught:
        records.write_credentials(tmp_path, settings, None)
    assert caught.value.number == 70


def test_our_interface_says_our_name(tmp_path: Path) -> None:
    settings = read_settings({"target": "127.0.0.1", "targetIQN": IQN}, HERE)
    name = records.interface_name(settings)
    for _ in range(2):
        records.write_interface(tmp_path, settings)
    said = (tmp_path / "ifaces" / name).read_text()
    assert said == f"iface.iscsi_ifacename = {name}\niface.transport_name = tcp\niface.initiatorname = {HERE}\n"
    for _ in range(2):
        records.remove_interface(tmp_path, settings)
    assert list((tmp_path / "ifaces").iterdir()) == []
    for other in ({"port": "3261"}, {"localIQN": "iqn.2026-01.org.example:other"}):
        assert records.interface_name(read_settings({"target": "127.0.0.1", **other}, HERE)) != name


def test_sessions_and_disks_are_found_in_sysfs(tmp_path: Path) -> None:
    for number, (iqn, interface, state) in enumerate(
        [(IQN, "default", "LOGGED_IN"), (IQN, "ours", "FAILED"), (IQN, "ours", "LOGGED_IN"), ("x", "ours", "LOGGED_IN")]
    ):
        session = tmp_path / f"session{number}"
        for lun, disk in ((1, "sda"), (12, "sdb")):
            (session / f"device/target3:0:0/3:0:0:{lun}/block/{disk}{number}").mkdir(parents=True)
        for name, said in (("targetname", iqn), ("ifacename", interface), ("state", state)):
            (session / name).write_text(f"{said}\n")
    found = records.session_of(tmp_path, IQN, "ours")
    assert found == tmp_path / "session2"
    assert records.disk_of(found, 12) == "sdb2"
    assert records.disk_of(found, 2) is None
    assert records.disks_of(found) == ["sda2", "sdb2"]
    assert records.session_of(tmp_path, IQN, "nobody's") is None
    assert records.session_of(tmp_path / "none", IQN, "ours") is None


def test_a_target_proves_itself_only_to_who_does_so_too() -> None:
    both = {"incoming_chapuser": "disks", "incoming_chappassword": SECRET}
    assert incoming_of({}) is None
    assert incoming_of({**both, "chapuser": "me"}) == Chap("disks", SECRET)
    for wrong in (
        both,
        {"incoming_chapuser": "disks", "chapuser": "me"},
        {**both, "chapuser": "me", "incoming_chappassword": f"{SECRET}\nnode.startup = automatic"},
        {**both, "chapuser": "me", "incoming_chappassword": "x" * 256},
    ):
        with pytest.raises(StorageError) as caught:
            incoming_of(wrong)
        assert caught.value.number == 20
        assert SECRET not in caught.value.text


def test_each_host_has_a_mark_of_its_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a" * 32)
    two.write_text("b" * 32)
    marks = {host_mark(path, HERE) for path in (one, two, tmp_path / "none")}
    assert len(marks) == 3
    assert all(len(mark) == 16 and mark.isalnum() for mark in marks)


async def test_only_the_last_process_ends_a_session(tmp_path: Path) -> None:
    """Two initiators stand for two processes: their locks are as far apart."""
    settings = read_settings({"target": "127.0.0.1", "targetIQN": IQN}, HERE)
    first, second = (Initiator(database=tmp_path, locks=tmp_path) for _ in range(2))
    assert not first._is_last(settings)
    first._take(settings)
    first._take(settings)
    second._take(settings)
    assert not first._is_last(settings)
    assert second._is_last(settings)
    await refused(16, _take(first, settings))
    os.close(second._held.popitem()[1])
    first._take(settings)
    assert first._is_last(settings)
    os.close(first._held.popitem()[1])


async def _take(initiator: Initiator, settings: IscsiSettings) -> None:
    initiator._take(settings)
