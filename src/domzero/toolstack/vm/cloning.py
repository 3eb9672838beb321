"""Machines from other machines: quick copies that share blocks, and full ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.storage.protocol import Progress
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NEVER, NULL_REF, Ref
from domzero.toolstack.alerts import VM_CLONED, tell_of_machine
from domzero.toolstack.network import vif
from domzero.toolstack.presence import writers
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks, vbd
from domzero.toolstack.vm.creation import create_metrics
from domzero.toolstack.vm.templates import TEMPLATE_ONLY

CopyDisk: TypeAlias = Callable[[Ref, Progress], Awaitable[Ref]]

NOT_COPIED: Mapping[str, Any] = {
    "uuid": "",
    "allowed_operations": (),
    "current_operations": EMPTY_MAP,
    "is_default_template": False,
    "resident_on": NULL_REF,
    "scheduled_to_be_resident_on": NULL_REF,
    "domid": -1,
    "domarch": "",
    "guest_metrics": NULL_REF,
    "ha_always_run": False,
    "ha_restart_priority": "",
    "is_a_snapshot": False,
    "snapshot_of": NULL_REF,
    "snapshot_time": NEVER,
    "snapshot_info": EMPTY_MAP,
    "snapshot_metadata": "",
    "transportable_snapshot_id": "",
    "is_snapshot_from_vmpp": False,
    "is_vmss_snapshot": False,
    "parent": NULL_REF,
    "blobs": EMPTY_MAP,
    "blocked_operations": EMPTY_MAP,
    "protection_policy": NULL_REF,
    "snapshot_schedule": NULL_REF,
    "appliance": NULL_REF,
    "attached_PCIs": (),
    "version": 0,
    "requires_reboot": False,
    "pending_guidances": (),
    "pending_guidances_recommended": (),
    "pending_guidances_full": (),
}
"""Fields that a copy does not take over from its source, and what they are instead."""
DEVICE_STATE: Mapping[str, Any] = {
    "uuid": "",
    "allowed_operations": (),
    "current_operations": EMPTY_MAP,
    "status_code": 0,
    "status_detail": "",
    "runtime_properties": EMPTY_MAP,
}
"""The same for drives and cards."""


@implements("VM.clone")
async def clone(stack: Stack, context: Context, vm: Ref, new_name: str) -> Ref:
    """A machine like this one (a template from a template), its disks sharing blocks with the originals where possible.

    Cards get new addresses. A suspended machine's clone is suspended with the same memory, so its cards keep theirs.
    """

    async def clone_disk(vdi: Ref, _: Progress) -> Ref:
        sr = stack.database.get("VDI", vdi, "SR")
        operation = "vdi_clone" if disks.supports(stack, sr, "VDI_CLONE") else "vdi_create"
        async with (
            stack.gates["VDI"].operation(context, vdi, "clone"),
            stack.gates["SR"].operation(context, sr, operation),
        ):
            return await disks.clone_vdi(stack, vdi)

    async with stack.gates["VM"].operation(context, vm, "clone"):
        made = await _duplicate(stack, context, vm, new_name, clone_disk)
    tell_of_machine(stack, VM_CLONED, vm, f"was cloned to '{new_name}'")
    return made


@implements("VM.copy")
async def copy(stack: Stack, context: Context, vm: Ref, new_name: str, sr: Ref) -> Ref:
    """A machine like this one with disks of its own, all in `sr`, or each where its original is if that is null.

    The task shows progress; cancelling it leaves nothing behind. Raises OPERATION_NOT_ALLOWED for a library of CD
    images.
    """
    if sr != NULL_REF and stack.database.get("SR", sr, "content_type") == "iso":
        raise ApiError("OPERATION_NOT_ALLOWED", "Disks cannot be copied into a library of CD images.")

    async def copy_disk(vdi: Ref, progress: Progress) -> Ref:
        target = stack.database.get("VDI", vdi, "SR") if sr == NULL_REF else sr
        async with (
            stack.gates["VDI"].operation(context, vdi, _reading(stack, vm, vdi)),
            stack.gates["SR"].operation(context, target, "vdi_create"),
        ):
            return await disks.copy_vdi(stack, vdi, target, progress)

    async with stack.gates["VM"].operation(context, vm, "copy"):
        with context.task.cancellable():
            made = await _duplicate(stack, context, vm, new_name, copy_disk)
    tell_of_machine(stack, VM_CLONED, vm, f"was copied to '{new_name}'")
    return made


def _reading(stack: Stack, vm: Ref, vdi: Ref) -> str:
    """The operation on a disk of the machine while it is copied.

    Disks of a suspended machine or of a checkpoint count as in use. Nothing writes to them, and the machine cannot go
    on meanwhile, since it is being copied.
    """
    alone = writers(stack.database, vdi) == {vm}
    return "blocked" if alone and stack.database.get("VM", vm, "power_state") == "Suspended" else "copy"


async def _duplicate(stack: Stack, context: Context, vm: Ref, new_name: str, copy_disk: CopyDisk) -> Ref:
    """Copy the disks, then make all rows at once: nobody sees half a machine, and a failure leaves no disk."""
    record = stack.database.record("VM", vm)
    wanted = _disks_of(stack, record)
    total = sum(stack.database.get("VDI", vdi, "virtual_size") for vdi in wanted)
    copies: dict[Ref, Ref] = {}
    done = 0
    async with Steps() as steps:
        for number, vdi in enumerate(wanted):
            size = stack.database.get("VDI", vdi, "virtual_size")
            progress = _part(context.task.set_progress, done, size, total)

            async def copy_it(vdi: Ref = vdi, progress: Progress = progress) -> None:
                copies[vdi] = await copy_disk(vdi, progress)

            async def remove_it(vdi: Ref = vdi) -> None:
                await disks.destroy_vdi(stack, copies[vdi])

            await steps.do(f"copy disk {number}", copy_it, remove_it)
            done += size
            context.task.set_progress(done / total if total else 1.0)
        made: list[Ref] = []
        await steps.do("record the machine", lambda: made.append(_record_copy(stack, record, new_name, copies)))
    _refresh(stack, made[0])
    return made[0]


def _disks_of(stack: Stack, record: Mapping[str, Any]) -> list[Ref]:
    """The disks that a copy of the machine needs of its own, each once. Saved memory never changes, so it is shared."""
    drives = [stack.database.record("VBD", ref) for ref in record["VBDs"]]
    found = [drive["VDI"] for drive in drives if drive["type"] == "Disk" and drive["VDI"] != NULL_REF]
    return list(dict.fromkeys(found))


def _part(report: Progress, done: int, size: int, total: int) -> Progress:
    """Progress of one disk as progress of all."""
    return lambda fraction: report((done + fraction * size) / total if total else fraction)


def _record_copy(stack: Stack, record: Mapping[str, Any], new_name: str, copies: Mapping[Ref, Ref]) -> Ref:
    """The rows of a copy of the machine as it was when the copying began: a drive added since has no copied disk."""
    database = stack.database
    suspended = record["power_state"] == "Suspended"
    with database.transaction() as transaction:
        fields = copied_machine(record, new_name, database.new_uuid(), generation_id(database.new_uuid()))
        fields["metrics"] = create_metrics(transaction, moment(stack.clock.now()))
        fields["suspend_VDI"] = record["suspend_VDI"] if suspended else NULL_REF
        new = transaction.create("VM", fields)
        for drive in _still_there(stack, "VBD", record["VBDs"]):
            vdi = copies.get(drive["VDI"], drive["VDI"])
            made = vbd.add_drive(stack, {**drive, **DEVICE_STATE, "VM": new, "VDI": vdi})
            if suspended:
                attached = {"currently_attached": drive["currently_attached"], "device": drive["device"]}
                transaction.update("VBD", made, **attached)
        for card in _still_there(stack, "VIF", record["VIFs"]):
            mac = card["MAC"] if suspended else ""
            made = vif.add_card(stack, {**card, **DEVICE_STATE, "VM": new, "MAC": mac})
            if suspended:
                transaction.update("VIF", made, currently_attached=card["currently_attached"])
    return new


def _still_there(stack: Stack, cls: str, refs: Iterable[Ref]) -> Iterator[Mapping[str, Any]]:
    for ref in refs:
        row = stack.database.find(cls, ref)
        if row is not None:
            yield row.record


def copied_machine(record: Mapping[str, Any], new_name: str, mac_seed: str, generation: str) -> dict[str, Any]:
    """The fields of a copy: the source's, with a name, a seed for addresses and a generation of its own."""
    fields: dict[str, Any] = {**record, **NOT_COPIED, "name_label": new_name}
    config = {key: value for key, value in record["other_config"].items() if key not in TEMPLATE_ONLY}
    if record["is_default_template"]:
        config["base_template_name"] = record["name_label"]
    fields["other_config"] = {**config, vif.MAC_SEED: mac_seed}
    if record["generation_id"]:
        fields["generation_id"] = generation
    if record["power_state"] != "Suspended":
        fields |= {"power_state": "Halted", "last_booted_record": "", "last_boot_CPU_flags": EMPTY_MAP}
    return fields


def generation_id(uuid: str) -> str:
    """Two 64-bit numbers, as `VM.generation_id` shows them."""
    number = int(uuid.replace("-", ""), 16)
    return f"{number >> 64}:{number & (2**64 - 1)}"


def _refresh(stack: Stack, vm: Ref) -> None:
    record = stack.database.record("VM", vm)
    stack.gates["VM"].refresh(vm)
    for ref in record["VBDs"]:
        vbd.refresh(stack, ref)
    for ref in record["VIFs"]:
        stack.gates["VIF"].refresh(ref)
