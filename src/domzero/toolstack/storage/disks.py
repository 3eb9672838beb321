"""Virtual disks as the rest of the toolstack uses them: made, copied, removed, on the medium and in the database.

Nothing here asks a gate: whoever calls decided that the operation may happen, and has the turn (`Machines.turn`) of a
running machine that writes to a disk to be cloned or captured. The medium comes first and the row second, in removal
too: whatever is interrupted, a scan of the repository shows what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from domzero.engine.clock import moment
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage.protocol import DiskInfo, Progress
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.repositories import asking, attached, measured, refresh_size
from domzero.toolstack.storage.vbd_admission import is_exclusive
from domzero.toolstack.vm.failures import acting_on

NO_SPACE = "SR_BACKEND_FAILURE_44"
"""What a full medium answers."""
COPIED_FIELDS = (
    "name_label",
    "name_description",
    "type",
    "sharable",
    "read_only",
    "other_config",
    "xenstore_data",
    "sm_config",
    "tags",
)
"""What a clone, copy or snapshot takes over from its source."""


def supports(stack: Stack, sr: Ref, capability: str) -> bool:
    """Whether the SR's driver says that it can do this (`VDI_CLONE`, …). Raises what `attached` raises."""
    driver, _ = attached(stack, sr)
    return capability in driver.info().capabilities


def require(stack: Stack, sr: Ref, capability: str) -> None:
    """Raises SR_OPERATION_NOT_SUPPORTED unless `supports`."""
    if not supports(stack, sr, capability):
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", sr)


async def disk_source(stack: Stack, vdi: Ref) -> DiskSource:
    """Where the hypervisor finds the disk. Raises VDI_MISSING for one that is gone, and SR_BACKEND_FAILURE_*."""
    record = stack.database.record("VDI", vdi)
    driver, repository = attached(stack, record["SR"])
    if record["missing"]:
        raise ApiError("VDI_MISSING", record["SR"], vdi)
    await stack.merges.leave(vdi)
    return await asking(driver.source(repository, record["location"]))


async def create_vdi(
    stack: Stack,
    sr: Ref,
    *,
    name_label: str,
    name_description: str = "",
    virtual_size: int,
    type: str = "user",
    other_config: Mapping[str, str] = EMPTY_MAP,
    sm_config: Mapping[str, str] = EMPTY_MAP,
    **fields: Any,
) -> Ref:
    """A new empty disk of at least that many bytes. `fields` are further fields of its row.

    The driver obeys what it knows of `sm_config`, such as `image-format`.

    Raises INVALID_VALUE for a size that is none, SR_OPERATION_NOT_SUPPORTED, SR_BACKEND_FAILURE_*; nothing is left
    then.
    """
    if virtual_size <= 0:
        raise ApiError("INVALID_VALUE", "virtual_size", str(virtual_size))
    require(stack, sr, "VDI_CREATE")
    driver, repository = attached(stack, sr)
    uuid = stack.database.new_uuid()
    row = {
        **fields,
        "name_label": name_label,
        "name_description": name_description,
        "type": type,
        "other_config": dict(other_config),
        "sm_config": dict(sm_config),
    }
    return await _make(stack, sr, row, lambda: driver.create_disk(repository, uuid, virtual_size, sm_config))


async def destroy_vdi(stack: Stack, vdi: Ref) -> None:
    """Remove the disk, its row, the drives that referred to it, and what machines recorded of it. Gone is no error."""
    found = stack.database.find("VDI", vdi)
    if found is None:
        return
    sr = found.record["SR"]
    require(stack, sr, "VDI_DELETE")
    driver, repository = attached(stack, sr)
    await stack.merges.leave(vdi)
    await asking(driver.destroy_disk(repository, found.record["location"]))
    forget_vdi(stack, vdi)
    stack.merges.want(sr)
    await _refresh_size_if_possible(stack, sr)


def forget_vdi(stack: Stack, vdi: Ref) -> None:
    """Remove the row of a disk, the disk drives that referred to it, and VM.suspend_VDI of whoever had it there.

    CD drives stay and become empty. Gone is no error.
    """
    database = stack.database
    found = database.find("VDI", vdi)
    if found is None:
        return
    with database.transaction() as transaction:
        for vbd in found.record["VBDs"]:
            if database.get("VBD", vbd, "type") == "Disk":
                remove_drive(stack, vbd)
            else:
                transaction.update("VBD", vbd, VDI=NULL_REF, empty=True)
                stack.gates["VBD"].refresh(vbd)
        for vm in stack.image_users.of(vdi):
            transaction.update("VM", vm, suspend_VDI=NULL_REF)
        for crashdump in found.record["crash_dumps"]:
            transaction.destroy("crashdump", crashdump)
        transaction.destroy("VDI", vdi)


def remove_drive(stack: Stack, vbd: Ref) -> None:
    """Remove a drive's row and the row of its figures."""
    database = stack.database
    with database.transaction() as transaction:
        metrics = database.get("VBD", vbd, "metrics")
        if database.find("VBD_metrics", metrics) is not None:
            transaction.destroy("VBD_metrics", metrics)
        transaction.destroy("VBD", vbd)


async def clone_vdi(stack: Stack, vdi: Ref) -> Ref:
    """An independent writable disk with the present content, sharing blocks where the driver can, else a full copy.

    A disk that a running machine writes to is captured first and cloned from there.
    """
    record = stack.database.record("VDI", vdi)
    sr = record["SR"]
    if not supports(stack, sr, "VDI_CLONE"):
        return await copy_vdi(stack, vdi, sr)
    driver, repository = attached(stack, sr)
    location = record["location"]
    uuid = stack.database.new_uuid()
    await stack.merges.leave(vdi)
    writer = writer_of(stack, vdi)
    if writer is None or writer.domid < 0:
        return await _make(stack, sr, _copied(record), lambda: driver.clone_disk(repository, location, uuid))
    require(stack, sr, "VDI_SNAPSHOT")

    async def clone_of_capture() -> DiskInfo:
        capture = await _capture(stack, vdi, stack.database.new_uuid())
        try:
            return await driver.clone_disk(repository, capture.location, uuid)
        finally:
            await driver.destroy_disk(repository, capture.location)

    return await _make(stack, sr, _copied(record), clone_of_capture)


async def copy_vdi(stack: Stack, vdi: Ref, sr: Ref, progress: Progress = lambda _: None) -> Ref:
    """A full copy in the given repository, sparse where blocks are empty. Cancelling the call leaves nothing behind."""
    record = stack.database.record("VDI", vdi)
    require(stack, sr, "VDI_CREATE")
    source = await disk_source(stack, vdi)
    driver, repository = attached(stack, sr)
    uuid = stack.database.new_uuid()
    size = record["virtual_size"]
    # Settings of the old repository's driver, and the old disk's serial number, mean nothing elsewhere.
    row = {**_copied(record), "sm_config": {}, "xenstore_data": {}}
    return await _make(stack, sr, row, lambda: driver.copy_disk(source, repository, uuid, size, progress))


async def snapshot_vdi(stack: Stack, vdi: Ref) -> Ref:
    """The disk's present content as a snapshot row; a running machine goes on writing without noticing.

    Raises SR_OPERATION_NOT_SUPPORTED, SR_BACKEND_FAILURE_*.
    """
    record = stack.database.record("VDI", vdi)
    require(stack, record["SR"], "VDI_SNAPSHOT")
    uuid = stack.database.new_uuid()
    row = {
        **_copied(record),
        "is_a_snapshot": True,
        "snapshot_of": vdi,
        "snapshot_time": moment(stack.clock.now()),
    }
    return await _make(stack, record["SR"], row, lambda: _capture(stack, vdi, uuid))


async def resize_vdi(stack: Stack, vdi: Ref, size: int) -> None:
    """Grow a disk to at least that many bytes, before the eyes of the running machine that writes to it.

    Raises VDI_IN_USE where several drives have it, or one that only reads or whose machine is suspended.
    """
    record = stack.database.record("VDI", vdi)
    driver, repository = attached(stack, record["SR"])
    await stack.merges.leave(vdi)
    info = await asking(driver.resize_disk(repository, record["location"], size, _grower(stack, vdi)))
    _record_measures(stack, vdi, info)
    await _refresh_size_if_possible(stack, record["SR"])


def _grower(stack: Stack, vdi: Ref) -> Callable[[int], Awaitable[None]] | None:
    """How the machine that has the disk is made to see another size; None where no machine has it."""
    vbds = stack.database.get("VDI", vdi, "VBDs")
    attached_in = sum(stack.database.get("VBD", vbd, "currently_attached") for vbd in vbds)
    if not attached_in:
        return None
    writer = writer_of(stack, vdi)
    if attached_in > 1 or writer is None or writer.domid < 0:
        raise ApiError("VDI_IN_USE", vdi, "resize_online")

    async def grow(size: int) -> None:
        with acting_on(writer.vm):
            await stack.hypervisor.resize_disk(writer.domid, writer.slot, size)

    return grow


async def update_vdi(stack: Stack, vdi: Ref) -> None:
    """Bring the row's sizes up to date with the medium."""
    record = stack.database.record("VDI", vdi)
    driver, repository = attached(stack, record["SR"])
    _record_measures(stack, vdi, await asking(driver.update_disk(repository, record["location"])))


class Writer(NamedTuple):
    """A machine that has a disk for writing. `domid` is -1 while it does not run: suspended, or about to start."""

    vm: Ref
    domid: int
    slot: int


def writer_of(stack: Stack, vdi: Ref) -> Writer | None:
    """Who may write to the disk at present."""
    database = stack.database
    for vbd in database.get("VDI", vdi, "VBDs"):
        drive = database.record("VBD", vbd)
        machine = database.find("VM", drive["VM"])
        if machine is None or not drive["currently_attached"] or drive["mode"] != "RW":
            continue
        runs = machine.record["power_state"] in ("Running", "Paused")
        return Writer(machine.ref, machine.record["domid"] if runs else -1, int(drive["userdevice"]))
    return None


async def _capture(stack: Stack, vdi: Ref, uuid: str) -> DiskInfo:
    """The disk's content under a new uuid on the medium, whoever writes to the disk."""
    record = stack.database.record("VDI", vdi)
    driver, repository = attached(stack, record["SR"])
    await stack.merges.leave(vdi)
    writer = writer_of(stack, vdi)
    if writer is None or writer.domid < 0:
        return await driver.snapshot_disk(repository, record["location"], uuid, None)

    async def switch(source: DiskSource) -> None:
        with acting_on(writer.vm):
            await stack.hypervisor.switch_disk(writer.domid, writer.slot, source)

    return await driver.snapshot_disk(repository, record["location"], uuid, switch)


async def _make(stack: Stack, sr: Ref, row: Mapping[str, Any], on_medium: Callable[[], Awaitable[DiskInfo]]) -> Ref:
    """Make a disk on the medium, then its row; without the row the disk does not stay."""
    driver, repository = attached(stack, sr)

    async def make() -> DiskInfo:
        return await asking(on_medium())

    def record(info: DiskInfo) -> Ref:
        with stack.database.transaction() as transaction:
            return transaction.create(
                "VDI",
                {
                    **row,
                    **measured({"sm_config": {}, "xenstore_data": {}, **row}, info),
                    "uuid": info.uuid,
                    "SR": sr,
                    "location": info.location,
                    "managed": True,
                },
            )

    try:
        async with Steps() as steps:
            info = await steps.do("make the disk", make)
            steps.on_failure("remove the disk", lambda: driver.destroy_disk(repository, info.location))
            vdi = await steps.do("record the disk", lambda: record(info))
        refresh_operations(stack, (vdi,))
    finally:
        # Also of a disk that is not to stay: somebody may have measured while it was there.
        await _refresh_size_if_possible(stack, sr)
    return vdi


async def _refresh_size_if_possible(stack: Stack, sr: Ref) -> None:
    """Sizes are for show: when the medium cannot tell them, the disk is made or gone all the same."""
    try:
        await refresh_size(stack, sr)
    except ApiError:
        return


def _copied(record: Mapping[str, Any]) -> dict[str, Any]:
    return {field: record[field] for field in COPIED_FIELDS}


def _record_measures(stack: Stack, vdi: Ref, info: DiskInfo) -> None:
    found = stack.database.find("VDI", vdi)
    if found is None:
        return
    with stack.database.transaction(observed=True) as transaction:
        transaction.update("VDI", vdi, **measured(found.record, info), missing=False)


def refresh_drives(stack: Stack, vdi: Ref) -> None:
    """Compute anew what the drives allow that the disk is in; a disk that is gone is in none."""
    disk = stack.database.find("VDI", vdi)
    if disk is not None:
        for vbd in disk.record["VBDs"]:
            stack.gates["VBD"].refresh(vbd)


def refresh_sharers(stack: Stack, vdi: Ref) -> None:
    """As `refresh_drives` after a change of one of the drives: others care only about a disk that is one machine's."""
    disk = stack.database.find("VDI", vdi)
    if disk is not None and is_exclusive(disk.record):
        refresh_drives(stack, vdi)


def refresh_operations(stack: Stack, vdis: Iterable[Ref]) -> None:
    """Compute anew what the disks allow; null and vanished references are passed over."""
    for vdi in vdis:
        if stack.database.find("VDI", vdi) is not None:
            stack.gates["VDI"].refresh(vdi)
