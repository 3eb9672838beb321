"""From a machine's record to what the hypervisor is told to run: pure functions, and what a boot leaves on record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import (
    DiskKind,
    DiskSource,
    DiskSpec,
    FirmwareBoot,
    KernelBoot,
    MachineSpec,
    NicSpec,
    Scheduling,
    TapBackend,
    UserBackend,
)
from domzero.idl.types import Ref
from domzero.toolstack.stack import StackSettings
from domzero.toolstack.storage.disk_limits import limits_at_start
from domzero.toolstack.vm.device_names import parse_vbd_position, parse_vif_position

FAULT_PREFIX: Final = "sim:"
"""Keys of other_config that ask the simulator for failures."""
DEFAULT_BOOT_ORDER: Final = "cd"
DISK_BOOTLOADERS: Final = frozenset({"pygrub"})
"""Boot loaders that find a kernel on the machine's disk: here the firmware runs the disk's own loader."""
INSTALLER_BOOTLOADERS: Final = frozenset({"eliloader"})
"""Boot loaders that start an operating system's installer."""
GUEST_FILES: Final = "guest"
"""The directory below the state directory whose files machines may boot as kernels."""

HIGHEST_WEIGHT: Final = 65535
"""Of `VCPUs_params:weight`, as Xen's scheduler has it."""

SET_AT_BOOT: Final = (
    "memory_static_max", "VCPUs_max", "VCPUs_at_startup", "platform", "domain_type", "HVM_boot_policy",
    "HVM_boot_params", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader", "PV_bootloader_args", "PV_legacy_args",
)  # fmt: skip
"""Fields that a domain keeps for its whole life, suspended or not, whatever the record says meanwhile."""
KEPT_AFTER_CRASH: Final = frozenset({"preserve", "coredump_and_destroy", "coredump_and_restart", "rename_restart"})
"""Actions after a crash for which the crashed guest must still be there."""
NOT_RECORDED: Final = frozenset({"last_booted_record", "snapshot_metadata", "allowed_operations", "current_operations"})


def is_hvm(record: Mapping[str, Any]) -> bool:
    """Whether the machine boots from firmware, as real computers do."""
    if record["domain_type"] in ("hvm", "unspecified") and record["HVM_boot_policy"]:
        return True
    return bool(record["domain_type"] == "hvm")


def machine_spec(
    vm: Ref,
    record: Mapping[str, Any],
    domid: int,
    disks: tuple[DiskSpec, ...],
    nics: tuple[NicSpec, ...],
    settings: StackSettings,
    *,
    saved: bool = False,
) -> MachineSpec:
    """What the hypervisor needs to run the machine as a new domain.

    A new guest is left all that its balloon may leave it; one that goes on from a saved memory has what it had.
    Raises VM_NO_VCPUS, VM_MEMORY_SIZE_TOO_LOW and what `boot_of` raises.
    """
    memory = record["memory_static_max"]
    if memory <= 0:
        raise ApiError("VM_MEMORY_SIZE_TOO_LOW", vm)
    if record["VCPUs_max"] < 1 or record["VCPUs_at_startup"] < 1:
        raise ApiError("VM_NO_VCPUS", vm)
    return MachineSpec(
        uuid=record["uuid"],
        name=record["name_label"],
        domid=domid,
        memory=memory,
        memory_target=min(memory, (saved and record["memory_target"]) or record["memory_dynamic_max"] or memory),
        vcpus_max=record["VCPUs_max"],
        vcpus=min(record["VCPUs_at_startup"], record["VCPUs_max"]),
        boot=boot_of(vm, record, disks, settings),
        disks=disks,
        nics=nics,
        scheduling=scheduling_of(record["VCPUs_params"]),
        keep_crashed=record["actions_after_crash"] in KEPT_AFTER_CRASH,
        platform=record["platform"],
        faults=faults_of(record),
    )


def scheduling_of(params: Mapping[str, str]) -> Scheduling:
    """What `VCPUs_params` ask for; what cannot be read asks for nothing. Clients may have written anything."""
    weight, mask = params.get("weight", ""), params.get("mask", "").replace(" ", "").split(",")
    usual = Scheduling()
    return Scheduling(
        weight=int(weight) if _is_number(weight) and 1 <= int(weight) <= HIGHEST_WEIGHT else usual.weight,
        processors=frozenset(map(int, mask)) if all(map(_is_number, mask)) else usual.processors,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7


def faults_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What the simulator is asked for, without the prefix."""
    config = record["other_config"]
    return {key.removeprefix(FAULT_PREFIX): value for key, value in config.items() if key.startswith(FAULT_PREFIX)}


def boot_of(
    vm: Ref, record: Mapping[str, Any], disks: tuple[DiskSpec, ...], settings: StackSettings
) -> KernelBoot | FirmwareBoot:
    """How the machine boots. Raises UNKNOWN_BOOTLOADER, BOOTLOADER_FAILED, VALUE_NOT_SUPPORTED."""
    if is_hvm(record):
        parameters = record["HVM_boot_params"]
        order = "".join(letter for letter in parameters.get("order", "").lower() if letter in "cdn")
        return FirmwareBoot(order or DEFAULT_BOOT_ORDER, uefi=parameters.get("firmware") == "uefi")
    bootloader = record["PV_bootloader"]
    if not bootloader and record["PV_kernel"]:
        return _kernel_boot(record, settings)
    if not bootloader or bootloader in DISK_BOOTLOADERS:
        return FirmwareBoot("c")
    if bootloader not in INSTALLER_BOOTLOADERS:
        raise ApiError("UNKNOWN_BOOTLOADER", vm, bootloader)
    if not any(disk.kind is DiskKind.CD and disk.source for disk in disks):
        raise ApiError("BOOTLOADER_FAILED", vm, "there is no installation disc in the machine's CD drive")
    return FirmwareBoot("dc")


def _kernel_boot(record: Mapping[str, Any], settings: StackSettings) -> KernelBoot:
    arguments = " ".join(part for part in (record["PV_args"], record["PV_legacy_args"]) if part)
    ramdisk = record["PV_ramdisk"]
    return KernelBoot(
        _guest_file("PV_kernel", record["PV_kernel"], settings),
        _guest_file("PV_ramdisk", ramdisk, settings) if ramdisk else None,
        arguments,
    )


def _guest_file(field: str, text: str, settings: StackSettings) -> Path:
    """A file of the host that a machine may see: whoever names a kernel could otherwise read any file of the host."""
    path = Path(text)
    if path in (settings.guest_kernel, settings.guest_ramdisk):
        return path
    resolved = path.resolve()
    allowed = (settings.state_dir / GUEST_FILES).resolve()
    if not resolved.is_relative_to(allowed):
        raise ApiError("VALUE_NOT_SUPPORTED", field, text, f"only files below {allowed} can be booted")
    return resolved


def disk_spec(record: Mapping[str, Any], source: DiskSource | None, *, disk_read_only: bool) -> DiskSpec:
    """The drive that a VBD stands for. Raises INVALID_DEVICE for a position that no drive can have."""
    slot = parse_vbd_position(record["userdevice"])
    if slot is None:
        raise ApiError("INVALID_DEVICE", record["userdevice"])
    kind = DiskKind.CD if record["type"] == "CD" else DiskKind.DISK
    read_only = kind is DiskKind.CD or record["mode"] == "RO" or disk_read_only
    return DiskSpec(
        slot, kind, source, read_only=read_only, bootable=record["bootable"], limits=limits_at_start(record)
    )


def nic_slot(record: Mapping[str, Any]) -> int:
    """The position of a VIF. Raises INVALID_DEVICE."""
    slot = parse_vif_position(record["device"])
    if slot is None:
        raise ApiError("INVALID_DEVICE", record["device"])
    return slot


def nic_spec(record: Mapping[str, Any], mtu: int, backend: TapBackend | UserBackend) -> NicSpec:
    """The network card that a VIF stands for."""
    return NicSpec(nic_slot(record), record["MAC"].lower(), mtu, backend)


def boot_record(record: Mapping[str, Any]) -> str:
    """The configuration as text, for `last_booted_record` and `snapshot_metadata`: JSON, field name to value."""
    return orjson.dumps({name: value for name, value in record.items() if name not in NOT_RECORDED}).decode()


def read_boot_record(text: str, present: Mapping[str, Any]) -> dict[str, Any]:
    """A whole VM record out of what `boot_record` wrote; fields it lacks are as in `present`.

    Text that cannot be read (imported from elsewhere) gives the present record.
    """
    record = dict(present)
    try:
        stored = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        stored = {}
    if not isinstance(stored, dict):
        return record
    for name, value in stored.items():
        if name in record and name not in NOT_RECORDED:
            record[name] = tuple(value) if isinstance(value, list) else value
    return record


def as_booted(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the fields that a saved domain was built with in place of those changed since."""
    booted = read_boot_record(record["last_booted_record"], record)
    return {**record, **{name: booted[name] for name in SET_AT_BOOT}}
