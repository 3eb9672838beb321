"""Virtual disks through the API, on simulated storage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.vm.world import DISK, DRIVE, MIB, World


def default_sr(host: World) -> Ref:
    return str(host.get("pool", host.stack.pool, "default_SR"))


def iso_sr(host: World) -> Ref:
    return next(ref for ref, row in host.stack.database.rows("SR").items() if row.record["type"] == "iso")


async def disk(host: World, **fields: Any) -> Ref:
    return str(await host.call("VDI.create", {**DISK, "SR": default_sr(host), **fields}))


def disturb(host: World, **settings: str) -> None:
    """Ask the default repository for faults and delays."""
    pbd = host.get("SR", default_sr(host), "PBDs")[0]
    config = host.get("PBD", pbd, "device_config")
    faults = {f"sim:{key.replace('_', '-')}": value for key, value in settings.items()}
    host.change("PBD", pbd, device_config={**config, **faults})


async def running_with_disk(host: World) -> tuple[Ref, Ref, Ref]:
    """Machine, drive and disk."""
    vm = await host.machine(disks=1, cards=0)
    await host.call("VM.start", vm, False, False)
    vbd = host.get("VM", vm, "VBDs")[0]
    return vm, vbd, host.get("VBD", vbd, "VDI")


async def test_a_new_disk_has_a_file_and_a_row(host: World) -> None:
    before = host.get("SR", default_sr(host), "virtual_allocation")
    vdi = await disk(host, name_label="data", virtual_size="9000001", other_config={"a": "b"})
    row = host.row("VDI", vdi)
    assert row["virtual_size"] >= 9000001
    assert (row["name_label"], row["other_config"], row["managed"], row["missing"]) == ("data", {"a": "b"}, True, False)
    assert row["location"] == row["uuid"]
    assert f"{row['uuid']}.raw" in host.files()
    assert {"clone", "copy", "destroy", "resize", "snapshot"} <= set(row["allowed_operations"])
    assert host.get("SR", default_sr(host), "virtual_allocation") > before


async def test_disks_cannot_be_made_of_nothing_or_among_cd_images(host: World) -> None:
    sr = default_sr(host)
    assert await host.fails("VDI.create", {**DISK, "SR": sr, "virtual_size": "0"}) == (
        "INVALID_VALUE", "virtual_size", "0",
    )  # fmt: skip
    assert await host.fails("VDI.create", {**DISK, "SR": iso_sr(host)}) == (
        "SR_OPERATION_NOT_SUPPORTED", iso_sr(host),
    )  # fmt: skip
    assert (await host.fails("VDI.create", {**DISK, "SR": "OpaqueRef:none"}))[0] == "HANDLE_INVALID"


async def test_what_the_storage_says_reaches_the_client(host: World) -> None:
    disturb(host, fail_create_disk="44 the medium is full")
    error = await host.fails("VDI.create", {**DISK, "SR": default_sr(host)})
    assert error == ("SR_BACKEND_FAILURE_44", "", "the medium is full", "")
    assert host.stack.database.refs("VDI") == ()


async def test_destroying_takes_the_drives_of_halted_machines_along(host: World) -> None:
    vm = await host.machine(disks=1)
    vbd = host.get("VM", vm, "VBDs")[0]
    vdi = host.get("VBD", vbd, "VDI")
    await host.call("VDI.destroy", vdi)
    assert host.get("VM", vm, "VBDs") == ()
    assert host.stack.database.find("VDI", vdi) is None
    assert host.stack.database.refs("VBD_metrics") == ()
    assert not any(name.endswith(".raw") for name in host.files())


@pytest.mark.parametrize("operation", ["destroy", "forget"])
async def test_a_disk_in_use_stays(host: World, operation: str) -> None:
    _, _, vdi = await running_with_disk(host)
    assert await host.fails(f"VDI.{operation}", vdi) == ("VDI_IN_USE", vdi, operation)
    assert operation not in host.get("VDI", vdi, "allowed_operations")


async def test_clone_copy_and_snapshot_take_the_description_over(host: World) -> None:
    vdi = await disk(host, name_label="data", name_description="of mine", other_config={"a": "b"})
    clone = await host.call("VDI.clone", vdi, {})
    copy = await host.call("VDI.copy", vdi, default_sr(host))
    snapshot = await host.call("VDI.snapshot", vdi, {})
    for made in (clone, copy, snapshot):
        row = host.row("VDI", made)
        assert (row["name_label"], row["name_description"], row["other_config"]) == ("data", "of mine", {"a": "b"})
        assert row["virtual_size"] == host.get("VDI", vdi, "virtual_size")
        assert f"{row['uuid']}.raw" in host.files()
    assert (host.get("VDI", snapshot, "is_a_snapshot"), host.get("VDI", snapshot, "snapshot_of")) == (True, vdi)
    assert host.get("VDI", snapshot, "snapshot_time") == "20110930T00:00:00Z"
    assert host.get("VDI", vdi, "snapshots") == (snapshot,)
    assert not host.get("VDI", clone, "is_a_snapshot")


async def test_a_running_machine_moves_on_when_its_disk_is_captured(host: World) -> None:
    vm, _, vdi = await running_with_disk(host)
    domain = host.hypervisor._domains[host.get("VM", vm, "domid")]
    before = domain.disks[0].spec.source
    snapshot = await host.call("VDI.snapshot", vdi, {})
    assert host.get("VDI", snapshot, "snapshot_of") == vdi
    assert before is not None
    clone = await host.call("VDI.clone", vdi, {})
    assert host.get("VDI", clone, "is_a_snapshot") is False
    files = [name for name in host.files() if name.endswith(".raw")]
    assert len(files) == 3, "the capture that a clone is made from does not stay"


async def test_a_switch_that_fails_leaves_no_snapshot(host: World) -> None:
    vm = await host.machine(disks=1, cards=0, other_config={"sim:fail-switch-disk": "no", "mac_seed": "s"})
    await host.call("VM.start", vm, False, False)
    vdi = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    assert (await host.fails("VDI.snapshot", vdi, {}))[0] == "INTERNAL_ERROR"
    assert host.stack.database.refs("VDI") == (vdi,)
    assert len([name for name in host.files() if name.endswith(".raw")]) == 1


async def test_sharable_disks_cannot_be_captured(host: World) -> None:
    vdi = await disk(host, sharable=True)
    assert await host.fails("VDI.snapshot", vdi, {}) == ("VDI_IS_SHARABLE", vdi)


async def test_resizing(host: World) -> None:
    vdi = await disk(host)
    await host.call("VDI.resize", vdi, str(16 * MIB))
    assert host.get("VDI", vdi, "virtual_size") == 16 * MIB
    assert await host.fails("VDI.resize", vdi, str(MIB)) == ("VDI_TOO_SMALL", vdi, str(16 * MIB))
    await host.call("VDI.resize_online", vdi, str(24 * MIB))
    assert host.get("VDI", vdi, "virtual_size") == 24 * MIB


async def test_a_disk_in_use_grows_only_where_the_driver_can(host: World) -> None:
    _, _, vdi = await running_with_disk(host)
    (driver,) = [ref for ref, row in host.stack.database.rows("SM").items() if row.record["type"] == "file"]
    able = host.get("SM", driver, "capabilities")
    host.change("SM", driver, capabilities=tuple(name for name in able if name != "VDI_RESIZE_ONLINE"))
    assert await host.fails("VDI.resize_online", vdi, str(64 * MIB)) == (
        "SR_OPERATION_NOT_SUPPORTED", default_sr(host),
    )  # fmt: skip


async def test_a_cancelled_copy_leaves_nothing(host: World) -> None:
    vdi = await disk(host)
    disturb(host, delay_copy_disk="60")
    task = await host.call("Async.VDI.copy", vdi, default_sr(host))
    await host.settle()
    assert "copy" in host.get("VDI", vdi, "current_operations").values()
    assert "cancel" in host.get("task", task, "allowed_operations")
    await host.call("task.cancel", task)
    await host.settle()
    assert host.get("task", task, "status") == "cancelled"
    assert host.get("VDI", vdi, "current_operations") == {}
    assert host.stack.database.refs("VDI") == (vdi,)
    assert len([name for name in host.files() if name.endswith(".raw")]) == 1


async def test_a_disk_that_is_being_copied_is_not_destroyed(host: World) -> None:
    vdi = await disk(host)
    disturb(host, delay_copy_disk="60")
    copying = host.begin("VDI.copy", vdi, default_sr(host))
    await host.settle()
    error = await host.over(asyncio.ensure_future(host.fails("VDI.destroy", vdi)), 35)
    assert error[:4] == ("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, "copy")
    assert await host.over(copying, 60) in host.stack.database.refs("VDI")


async def test_copies_of_differences_are_refused(host: World) -> None:
    vdi, base = await disk(host), await disk(host)
    error = await host.fails("VDI.copy", vdi, default_sr(host), base, NULL_REF)
    assert error == ("SR_OPERATION_NOT_SUPPORTED", default_sr(host))


async def test_forgetting_keeps_the_data(host: World) -> None:
    vdi = await disk(host)
    uuid = host.get("VDI", vdi, "uuid")
    await host.call("VDI.forget", vdi)
    assert host.stack.database.refs("VDI") == ()
    await host.call("SR.scan", default_sr(host))
    assert [row.record["uuid"] for row in host.stack.database.rows("VDI").values()] == [uuid]


def introduction(sr: Ref, uuid: str, location: str) -> tuple[Any, ...]:
    return (uuid, "again", "described", sr, "user", False, False, {"a": "b"}, location, {}, {})


async def test_introducing_a_forgotten_disk(host: World) -> None:
    vdi = await disk(host)
    row = host.row("VDI", vdi)
    sr = default_sr(host)
    taken = introduction(sr, row["uuid"], row["location"])
    assert await host.fails("VDI.introduce", *taken) == ("LOCATION_NOT_UNIQUE", sr, row["location"])
    await host.call("VDI.forget", vdi)
    for no_uuid in ("zz", "../a", row["uuid"].upper(), f"{{{row['uuid']}}}"):
        refused = introduction(sr, no_uuid, row["location"])
        assert await host.fails("VDI.introduce", *refused) == ("INVALID_VALUE", "uuid", no_uuid)
    again = await host.call("VDI.introduce", *taken)
    assert host.get("VDI", again, "uuid") == row["uuid"]
    assert host.get("VDI", again, "virtual_size") == row["virtual_size"]
    assert host.get("VDI", again, "other_config") == {"a": "b"}
    missing = introduction(sr, "", "4bf9f0c6-0000-4000-8000-000000000000")
    assert (await host.fails("VDI.introduce", *missing))[0] == "VDI_LOCATION_MISSING"


async def test_setters(host: World) -> None:
    vdi = await disk(host)
    await host.call("VDI.set_name_label", vdi, "n")
    await host.call("VDI.set_name_description", vdi, "d")
    await host.call("VDI.set_read_only", vdi, True)
    await host.call("VDI.set_sharable", vdi, True)
    row = host.row("VDI", vdi)
    assert (row["name_label"], row["name_description"], row["read_only"], row["sharable"]) == ("n", "d", True, True)
    assert await host.fails("VDI.set_on_boot", vdi, "reset") == ("SR_OPERATION_NOT_SUPPORTED", default_sr(host))


async def test_a_disk_being_written_does_not_become_read_only(host: World) -> None:
    _, _, vdi = await running_with_disk(host)
    assert await host.fails("VDI.set_read_only", vdi, True) == ("VDI_IN_USE", vdi, "set_read_only")


async def test_special_disks_are_not_destroyed(host: World) -> None:
    vdi = await disk(host)
    for fields, code in (
        ({"type": "rrd"}, "VDI_HAS_RRDS"),
        ({"managed": False}, "VDI_NOT_MANAGED"),
        ({"is_tools_iso": True}, "SR_OPERATION_NOT_SUPPORTED"),
    ):
        before = {name: host.get("VDI", vdi, name) for name in fields}
        host.change("VDI", vdi, **fields)
        assert (await host.fails("VDI.destroy", vdi))[0] == code
        host.change("VDI", vdi, **before)


async def test_a_missing_disk_can_be_forgotten_but_not_copied(host: World) -> None:
    vdi = await disk(host)
    host.change("VDI", vdi, missing=True)
    assert await host.fails("VDI.clone", vdi, {}) == ("VDI_MISSING", default_sr(host), vdi)
    await host.call("VDI.forget", vdi)


async def test_without_its_repository_nothing_happens_to_a_disk(host: World) -> None:
    vdi = await disk(host)
    await host.call("PBD.unplug", host.get("SR", default_sr(host), "PBDs")[0])
    assert await host.fails("VDI.clone", vdi, {}) == ("SR_NOT_ATTACHED", default_sr(host))


async def test_a_crash_dump_goes_with_its_disk(host: World) -> None:
    vm = await host.machine(disks=0, cards=0)
    vdi = await disk(host, type="crashdump")
    with host.stack.database.transaction() as transaction:
        dump = transaction.create("crashdump", {"VM": vm, "VDI": vdi})
    await host.call("crashdump.destroy", dump)
    assert host.stack.database.find("VDI", vdi) is None
    assert host.stack.database.find("crashdump", dump) is None


@pytest.mark.parametrize("step", ["make the disk", "record the disk"])
@pytest.mark.parametrize("operation", ["create", "clone", "copy", "snapshot"])
async def test_any_step_may_fail(host: World, operation: str, step: str) -> None:
    source = await disk(host)
    files = host.files()
    params = {
        "create": ({**DISK, "SR": default_sr(host)},),
        "clone": (source, {}),
        "copy": (source, default_sr(host)),
        "snapshot": (source, {}),
    }[operation]

    def fail(name: str) -> None:
        if name == step:
            raise ApiError("INTERNAL_ERROR", name)

    token = before_step.set(fail)
    try:
        assert await host.fails(f"VDI.{operation}", *params) == ("INTERNAL_ERROR", step)
    finally:
        before_step.reset(token)
    assert host.files() == files
    assert host.stack.database.refs("VDI") == (source,)
    assert host.get("VDI", source, "current_operations") == {}


async def test_two_machines_do_not_write_to_one_disk(host: World) -> None:
    _, _, vdi = await running_with_disk(host)
    other = await host.machine(disks=0, cards=0)
    vbd = await host.call("VBD.create", {**DRIVE, "VM": other, "VDI": vdi, "userdevice": "0"})
    assert await host.fails("VBD.assert_attachable", vbd) == ("VDI_IN_USE", vdi, "attach")
    assert (await host.fails("VM.start", other, False, False))[0] == "VDI_IN_USE"
