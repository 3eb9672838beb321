"""Machines from nothing, and into nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.blobs.blob import remove_blobs
from domzero.toolstack.network import vif
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.vm import images, installer
from domzero.toolstack.vm.memory_constraints import (
    check_limits,
    check_multiplier,
    check_vcpus,
    limits_of,
    target_within,
)

BIOS_ORDER = "BIOS order"
"""The boot policy of machines that boot from firmware; the only one besides none."""
REFERENCES = {"appliance": "VM_appliance", "snapshot_schedule": "VMSS", "protection_policy": "VMPP"}
"""Fields of a new machine that must refer to something that exists, and its class."""
OWNED = {"VTPMs": "VTPM", "VUSBs": "VUSB", "VGPUs": "VGPU", "crash_dumps": "crashdump", "consoles": "console"}
"""Sets of objects that are nothing without their machine, and their class."""


@implements("VM.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new halted machine (or template) without devices.

    Raises MEMORY_CONSTRAINT_VIOLATION*, INVALID_VALUE for impossible numbers of processors.
    """
    for field, cls in REFERENCES.items():
        if args[field] != NULL_REF:
            stack.database.row(cls, args[field])
    fields = new_machine(args)
    other_config = args["other_config"]
    if vif.MAC_SEED not in other_config:
        other_config = {**other_config, vif.MAC_SEED: stack.database.new_uuid()}
    with stack.database.transaction() as transaction:
        metrics = create_metrics(transaction, moment(stack.clock.now()))
        vm = transaction.create("VM", {**fields, "other_config": other_config, "metrics": metrics})
    stack.gates["VM"].refresh(vm)
    return vm


def new_machine(args: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's fields, checked, with those that follow from them. A new machine is always halted."""
    limits = check_limits(limits_of(args))
    check_vcpus(args["VCPUs_at_startup"], args["VCPUs_max"])
    check_multiplier("HVM_shadow_multiplier", args["HVM_shadow_multiplier"])
    return {
        **args,
        **domain_type_fields(args["domain_type"], args["HVM_boot_policy"]),
        "memory_target": target_within(limits, args["memory_target"]),
        "power_state": "Halted",
        "suspend_VDI": NULL_REF,
        "domid": -1,
    }


def domain_type_fields(domain_type: str, boot_policy: str) -> dict[str, str]:
    """Kind of machine and boot policy so that they agree: older clients know only the policy, newer ones the kind."""
    if domain_type == "unspecified":
        return {"domain_type": "hvm" if boot_policy else "pv", "HVM_boot_policy": boot_policy}
    if domain_type == "hvm":
        return {"domain_type": domain_type, "HVM_boot_policy": boot_policy or BIOS_ORDER}
    return {"domain_type": domain_type, "HVM_boot_policy": ""}


def create_metrics(transaction: Transaction, installed: str) -> Ref:
    """The figures' row of a machine that has never run."""
    return transaction.create("VM_metrics", {"install_time": installed})


@implements("VM.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove the machine with its drives, cards and what describes it. Its disks stay, its saved memory does not.

    Snapshots of it stay too; what was derived from it now descends from its parent.
    """
    async with stack.gates["VM"].operation(context, self, "destroy"):
        image = stack.database.get("VM", self, "suspend_VDI")
        uuid = stack.database.get("VM", self, "uuid")
        remove_machine(stack, self)
        await stack.database.durable()
        await images.release(stack, image)
        await installer.discard(stack, uuid)


def remove_machine(stack: Stack, vm: Ref) -> None:
    """Remove the rows of a machine and of what belongs to it alone, in one transaction; no disk is touched."""
    database = stack.database
    record = database.record("VM", vm)
    used = [database.get("VBD", vbd, "VDI") for vbd in record["VBDs"]]
    with database.transaction() as transaction:
        for vbd in record["VBDs"]:
            disks.remove_drive(stack, vbd)
        for card in record["VIFs"]:
            vif.remove_card(stack, card)
        for field, cls in OWNED.items():
            for ref in record[field]:
                transaction.destroy(cls, ref)
        for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
            if database.find(cls, record[field]) is not None:
                transaction.destroy(cls, record[field])
        remove_blobs(stack, transaction, record["blobs"])
        _leave_family(database, transaction, vm, record)
        transaction.destroy("VM", vm)
    disks.refresh_operations(stack, used)
    if database.find("VM_appliance", record["appliance"]) is not None:
        stack.gates["VM_appliance"].refresh(record["appliance"])


def _leave_family(database: Database, transaction: Transaction, vm: Ref, record: Mapping[str, Any]) -> None:
    """Let snapshots and descendants of the machine get on without it."""
    for snapshot in record["snapshots"]:
        transaction.update("VM", snapshot, snapshot_of=NULL_REF)
    parent = record["parent"] if database.find("VM", record["parent"]) is not None else NULL_REF
    for child in record["children"]:
        transaction.update("VM", child, parent=parent)
