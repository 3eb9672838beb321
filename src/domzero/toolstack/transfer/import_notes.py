"""What is to be said of a machine that was imported, once its disks are here: rules' notes, and what keeps it here from
starting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.transfer.foreign import NO_BOOT_CODE, boots_from_disk
from domzero.toolstack.transfer.import_plan import NewMachine, Plan
from domzero.toolstack.vm.device_names import parse_vbd_position
from domzero.toolstack.vm.disk_loader import has_boot_code
from domzero.toolstack.vm.memory_needs import memory_needed
from domzero.toolstack.vm.placement import obstacle

PASSING: Final = frozenset({"HOST_DISABLED", "HOST_NOT_LIVE", "HOST_NOT_ENOUGH_FREE_MEMORY"})
"""Obstacles to a start that say nothing of the machine."""


def notes_of(
    stack: Stack, plan: Plan, machine: NewMachine, vm: Ref, sectors: Mapping[str, bytes]
) -> tuple[str, ...]:  # fmt: skip
    """All notes on a machine. `sectors` are the first bytes of the disks that came along."""
    if machine.fields["is_a_template"]:
        return machine.notes
    return (*machine.notes, *_boot_disk(plan, machine, sectors), *_host(stack, vm))


def _boot_disk(plan: Plan, machine: NewMachine, sectors: Mapping[str, bytes]) -> tuple[str, ...]:
    """Xen may have booted a paravirtual machine without a loader on its disk."""
    if plan.own or not sectors or not boots_from_disk(machine.fields):
        return ()
    drives = [it for it in plan.drives if it.machine == machine.id and it.fields["type"] == "Disk"]
    drives.sort(key=lambda it: (not it.fields["bootable"], parse_vbd_position(it.fields["userdevice"]) or 0))
    if not drives or drives[0].disk not in sectors or has_boot_code(sectors[drives[0].disk]):
        return ()
    return (NO_BOOT_CODE,)


def _host(stack: Stack, vm: Ref) -> tuple[str, ...]:
    """What this host lacks, whatever else goes on on it: firmware, processors, memory, virtual hardware."""
    record = stack.database.record("VM", vm)
    error = obstacle(stack, vm, record, stack.host, force=False)
    if error is not None and error.code not in PASSING:
        return (f"It cannot start on this host: {error}.",)
    metrics = stack.database.find("host_metrics", stack.database.get("host", stack.host, "metrics"))
    total = metrics.record["memory_total"] if metrics is not None else 0
    if 0 < total < memory_needed(record):
        return (f"It cannot start on this host: it needs {memory_needed(record)} bytes of memory, of {total} in all.",)
    return ()
