"""Where a machine can run: the checks of one host, and the choice among hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.memory_needs import memory_needed
from domzero.toolstack.vm.specification import is_hvm


@implements("VM.get_possible_hosts")
def get_possible_hosts(stack: Stack, context: Context, vm: Ref) -> tuple[Ref, ...]:
    """The hosts on which the machine could be started at this moment."""
    record = stack.database.record("VM", vm)
    hosts = stack.database.refs("host")
    return tuple(host for host in hosts if obstacle(stack, vm, record, host, force=False) is None)


@implements("VM.assert_can_boot_here")
def assert_can_boot_here(stack: Stack, context: Context, self: Ref, host: Ref) -> None:
    """Raises the first obstacle to starting the machine on the host."""
    stack.database.row("host", host)
    error = obstacle(stack, self, stack.database.record("VM", self), host, force=False)
    if error is not None:
        raise error


def choose_host(stack: Stack, vm: Ref, record: Mapping[str, Any], *, force: bool) -> Ref:
    """The machine's affinity if it can run there, else the host with the most free memory.

    Raises NO_HOSTS_AVAILABLE, or the one host's own obstacle where the pool has only one.
    """
    hosts = stack.database.refs("host")
    obstacles = {host: obstacle(stack, vm, record, host, force=force) for host in hosts}
    possible = [host for host, error in obstacles.items() if error is None]
    if record["affinity"] in possible:
        return str(record["affinity"])
    if possible:
        return max(possible, key=lambda host: memory_available(stack, host) or 0)
    only = next(iter(obstacles.values())) if len(obstacles) == 1 else None
    raise only or ApiError("NO_HOSTS_AVAILABLE")


def obstacle(stack: Stack, vm: Ref, record: Mapping[str, Any], host: Ref, *, force: bool) -> ApiError | None:
    """The first reason why the machine cannot run on the host, or None. `force` leaves out what is merely unwise."""
    database = stack.database
    return (
        _host_state(database, host)
        or (None if force else _processors(database, record, host))
        or _hardware(stack, vm, record, host)
        or _storage(database, vm, record, host)
        or _networks(database, vm, record, host)
        or memory_obstacle(stack, record, host)
    )


def memory_available(stack: Stack, host: Ref) -> int | None:
    """Bytes of the host's memory that no machine has or is about to get; None where its size is not known yet."""
    record = stack.database.record("host", host)
    metrics = stack.database.find("host_metrics", record["metrics"])
    total = metrics.record["memory_total"] if metrics else 0
    if total <= 0:
        return None
    return int(total - record["memory_overhead"] - stack.memory.held(host))


def _host_state(database: Database, host: Ref) -> ApiError | None:
    record = database.record("host", host)
    metrics = database.find("host_metrics", record["metrics"])
    if metrics is not None and not metrics.record["live"]:
        return ApiError("HOST_NOT_LIVE")
    return None if record["enabled"] else ApiError("HOST_DISABLED", host)


def _processors(database: Database, record: Mapping[str, Any], host: Ref) -> ApiError | None:
    """More virtual processors than the host has real ones only slow the guest down."""
    present = len(database.get("host", host, "host_CPUs"))
    if 0 < present < record["VCPUs_at_startup"]:
        return ApiError("HOST_NOT_ENOUGH_PCPUS", str(record["VCPUs_at_startup"]), str(present))
    return None


def _hardware(stack: Stack, vm: Ref, record: Mapping[str, Any], host: Ref) -> ApiError | None:
    capabilities = stack.database.get("host", host, "capabilities")
    if is_hvm(record) and capabilities and not any(word.startswith("hvm") for word in capabilities):
        return ApiError("VM_HVM_REQUIRED", vm)
    uefi = record["HVM_boot_params"].get("firmware") == "uefi"
    if is_hvm(record) and uefi and host == stack.host and not stack.hypervisor.capabilities().has_uefi:
        return ApiError("VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host, "the host has no UEFI firmware for machines")
    offered = stack.database.get("host", host, "virtual_hardware_platform_versions")
    wanted = record["hardware_platform_version"]
    if offered and wanted not in offered:
        return ApiError(
            "VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION",
            host,
            ", ".join(str(version) for version in offered),
            vm,
            str(wanted),
        )
    if record["VGPUs"]:
        group = stack.database.get("VGPU", record["VGPUs"][0], "GPU_group")
        return ApiError("VM_REQUIRES_GPU", vm, group)
    return None


def lacks_storage(database: Database, vm: Ref, record: Mapping[str, Any], host: Ref) -> bool:
    """Whether a repository that the machine needs is not plugged on that host."""
    error = _storage(database, vm, record, host)
    return error is not None and error.code == "VM_REQUIRES_SR"


def _storage(database: Database, vm: Ref, record: Mapping[str, Any], host: Ref) -> ApiError | None:
    disks = [database.get("VBD", vbd, "VDI") for vbd in record["VBDs"]]
    if record["power_state"] == "Suspended":
        disks.append(record["suspend_VDI"])
    for vdi in disks:
        if vdi == NULL_REF:
            continue
        disk = database.find("VDI", vdi)
        if disk is None:
            return ApiError("VM_REQUIRES_VDI", vm, vdi)
        if not _reaches(database, disk.record["SR"], host):
            return ApiError("VM_REQUIRES_SR", vm, disk.record["SR"])
    return None


def _reaches(database: Database, sr: Ref, host: Ref) -> bool:
    repository = database.find("SR", sr)
    return repository is not None and any(
        database.get("PBD", pbd, "host") == host and database.get("PBD", pbd, "currently_attached")
        for pbd in repository.record["PBDs"]
    )


def _networks(database: Database, vm: Ref, record: Mapping[str, Any], host: Ref) -> ApiError | None:
    """A network with interfaces must have one on this host; a network without any can be made on every host."""
    for vif in record["VIFs"]:
        reference = database.get("VIF", vif, "network")
        if reference == NULL_REF:
            continue
        network = database.find("network", reference)
        if network is None:
            return ApiError("VM_REQUIRES_NETWORK", vm, reference)
        pifs = network.record["PIFs"]
        if pifs and not any(database.get("PIF", pif, "host") == host for pif in pifs):
            return ApiError("VM_REQUIRES_NETWORK", vm, reference)
    return None


def growth_obstacle(stack: Stack, vm: Ref, more: int) -> ApiError | None:
    """HOST_NOT_ENOUGH_FREE_MEMORY where a machine that runs cannot have so many bytes more, or None."""
    available = memory_available(stack, stack.database.get("VM", vm, "resident_on"))
    if available is not None and more > max(0, available):
        return ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(more), str(max(0, available)))
    return None


def memory_obstacle(stack: Stack, record: Mapping[str, Any], host: Ref) -> ApiError | None:
    """HOST_NOT_ENOUGH_FREE_MEMORY where the machine does not fit into what is left, or None."""
    available = memory_available(stack, host)
    needed = memory_needed(record)
    if available is not None and needed > available:
        return ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(max(0, available)))
    return None
