"""The drives and cards of a machine that is about to run: reserved together, or not at all.

While a machine starts, its drives and cards count as attached already, so that nobody takes the disks away or starts
another machine on them; `release` puts back what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import DiskSpec
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import vbd as drives
from domzero.toolstack.storage.disk_limits import SUPPORTED
from domzero.toolstack.storage.disks import disk_source
from domzero.toolstack.storage.vbd_admission import disk_refusal
from domzero.toolstack.vm.device_names import drive_name, parse_vbd_position
from domzero.toolstack.vm.placement import memory_obstacle
from domzero.toolstack.vm.specification import disk_spec

Before = list[tuple[str, Ref, dict[str, Any]]]
"""Class, reference and fields as they were."""


def state(stack: Stack, vm: Ref, vbds: Iterable[Ref], vifs: Iterable[Ref]) -> Before:
    """What `reserve` is about to change, as it is now."""
    get = stack.database.get
    return [
        *(("VBD", vbd, {"currently_attached": get("VBD", vbd, "currently_attached")}) for vbd in vbds),
        *(("VIF", vif, {"currently_attached": get("VIF", vif, "currently_attached")}) for vif in vifs),
        ("VM", vm, {"scheduled_to_be_resident_on": NULL_REF}),
    ]


def reserve(stack: Stack, vm: Ref, host: Ref, vbds: Iterable[Ref], vifs: Iterable[Ref]) -> None:
    """Count the machine as coming to the host with these drives and cards.

    Raises HOST_NOT_ENOUGH_FREE_MEMORY when others were quicker, VDI_IN_USE, VDI_READONLY,
    OTHER_OPERATION_IN_PROGRESS, VM_DUPLICATE_VBD_DEVICE; then nothing has changed.
    """
    database = stack.database
    vbds, vifs = tuple(vbds), tuple(vifs)
    record = database.record("VM", vm)
    # A machine that reboots has its memory already.
    too_little = None if record["resident_on"] == host else memory_obstacle(stack, record, host)
    if too_little is not None:
        raise too_little
    slots: set[str] = set()
    with database.transaction() as transaction:
        for vbd in vbds:
            drive = database.record("VBD", vbd)
            if drive["userdevice"] in slots:
                raise ApiError("VM_DUPLICATE_VBD_DEVICE", vm, vbd, drive["userdevice"])
            slots.add(drive["userdevice"])
            error = None if drive["currently_attached"] else disk_refusal(database, vbd, drive["VDI"], "attach")
            if error is not None:
                raise error
            transaction.update("VBD", vbd, currently_attached=True)
        for vif in vifs:
            transaction.update("VIF", vif, currently_attached=True)
        transaction.update("VM", vm, scheduled_to_be_resident_on=host)
        _refresh(stack, vbds, vifs)


def release(stack: Stack, before: Before) -> None:
    """Put back what `reserve` changed."""
    with stack.database.transaction() as transaction:
        for cls, ref, fields in before:
            if stack.database.find(cls, ref) is not None:
                transaction.update(cls, ref, **fields)
        _refresh(
            stack, (ref for cls, ref, _ in before if cls == "VBD"), (ref for cls, ref, _ in before if cls == "VIF")
        )


def _refresh(stack: Stack, vbds: Iterable[Ref], vifs: Iterable[Ref]) -> None:
    """Compute anew what the devices that are left allow, and the disks in them."""
    for vbd in vbds:
        if stack.database.find("VBD", vbd) is not None:
            drives.refresh(stack, vbd)
    for vif in vifs:
        stack.gates["VIF"].refresh(vif)


async def disk_specs(stack: Stack, vbds: Iterable[Ref]) -> tuple[DiskSpec, ...]:
    """The drives with the places of their disks' content. Raises VDI_MISSING, SR_*, INVALID_DEVICE."""
    database = stack.database
    specs: list[DiskSpec] = []
    for vbd in vbds:
        drive = database.record("VBD", vbd)
        if drive["type"] == "Floppy":
            continue
        disk = database.find("VDI", drive["VDI"])
        source = None if disk is None else await disk_source(stack, disk.ref)
        specs.append(disk_spec(drive, source, disk_read_only=disk is not None and disk.record["read_only"]))
    return tuple(sorted(specs, key=lambda spec: spec.slot))


def attached_fields(drive: Mapping[str, Any]) -> dict[str, Any]:
    """What a VBD shows while the domain runs."""
    slot = parse_vbd_position(drive["userdevice"])
    name = "" if slot is None else drive_name(slot)
    return {
        "currently_attached": True,
        "device": name,
        "qos_supported_algorithms": SUPPORTED,
        "status_code": 0,
        "status_detail": "",
    }
