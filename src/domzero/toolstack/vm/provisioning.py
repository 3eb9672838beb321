"""From a clone of a template to a machine that can be started: its disks are made, and it is a template no more."""

from __future__ import annotations

from collections.abc import Sequence

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks, vbd
from domzero.toolstack.vm.device_names import choose_vbd_position
from domzero.toolstack.vm.disk_plan import PlannedDisk, parse_disk_plan

PLAN = "disks"
POSTINSTALL = "postinstall"
OWNER = "owner"
"""The key of a drive's other_config by which clients know that the disk goes with its machine."""
DESCRIPTION = "Created by template provisioner"


@implements("VM.provision")
async def provision(stack: Stack, context: Context, vm: Ref) -> None:
    """Make the disks that `other_config:disks` plans and turn the template into a machine; a failure changes nothing.

    Raises PROVISION_ONLY_ALLOWED_ON_TEMPLATE, UUID_INVALID and DEFAULT_SR_NOT_FOUND for repositories that are not
    there, PROVISION_FAILED_OUT_OF_SPACE, INVALID_VALUE for a plan that cannot be read, OPERATION_NOT_ALLOWED for the
    pool's own templates, which are to be cloned first, and for scripts to be run on the host.
    """
    async with stack.gates["VM"].operation(context, vm, "provision"):
        plan = _plan(stack, vm)
        made: list[Ref] = []
        async with Steps() as steps:
            for disk, sr in plan:

                async def make(disk: PlannedDisk = disk, sr: Ref = sr) -> None:
                    made.append(await _make_disk(stack, context, disk, sr))

                async def remove() -> None:
                    await disks.destroy_vdi(stack, made.pop())

                await steps.do(f"make disk {disk.device}", make, remove)
            await steps.do("record the machine", lambda: _record(stack, vm, [disk for disk, _ in plan], made))
    for ref in stack.database.get("VM", vm, "VBDs"):
        vbd.refresh(stack, ref)


def _plan(stack: Stack, vm: Ref) -> list[tuple[PlannedDisk, Ref]]:
    """The disks to be made, each with its repository, after a look at whether that can work."""
    record = stack.database.record("VM", vm)
    config = record["other_config"]
    if record["is_default_template"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "This template belongs to the pool: clone it and provision the clone.")
    if config.get(POSTINSTALL):
        raise ApiError("OPERATION_NOT_ALLOWED", "Scripts in other_config:postinstall are not run on the host.")
    plan = parse_disk_plan(config[PLAN]) if PLAN in config else ()
    taken = vbd.taken_positions(stack, vm)
    for disk in plan:
        choose_vbd_position(disk.device, taken)
    return [(disk, _repository(stack, disk.sr)) for disk in plan]


def _repository(stack: Stack, uuid: str) -> Ref:
    if uuid:
        return stack.database.by_uuid("SR", uuid)
    default: Ref = stack.database.get("pool", stack.pool, "default_SR")
    if stack.database.find("SR", default) is None:
        raise ApiError("DEFAULT_SR_NOT_FOUND", default)
    return default


async def _make_disk(stack: Stack, context: Context, disk: PlannedDisk, sr: Ref) -> Ref:
    try:
        async with stack.gates["SR"].operation(context, sr, "vdi_create"):
            return await disks.create_vdi(
                stack,
                sr,
                name_label=disk.device,
                name_description=DESCRIPTION,
                virtual_size=disk.size,
                type=disk.type,
            )
    except ApiError as error:
        if error.code == disks.NO_SPACE:
            raise ApiError("PROVISION_FAILED_OUT_OF_SPACE") from error
        raise


def _record(stack: Stack, vm: Ref, plan: Sequence[PlannedDisk], vdis: Sequence[Ref]) -> None:
    """The drives, and the machine as a machine, all at once."""
    database = stack.database
    record = database.record("VM", vm)
    config = {key: value for key, value in record["other_config"].items() if key not in (PLAN, POSTINSTALL)}
    with database.transaction() as transaction:
        for disk, vdi in zip(plan, vdis, strict=True):
            vbd.add_drive(
                stack,
                {
                    "VM": vm,
                    "VDI": vdi,
                    "userdevice": disk.device,
                    "bootable": disk.bootable,
                    "mode": "RW",
                    "type": "Disk",
                    "empty": False,
                    "other_config": {OWNER: ""},
                },
            )
        transaction.update("VM", vm, other_config=config, is_a_template=False)
        if database.find("VM_metrics", record["metrics"]) is not None:
            transaction.update("VM_metrics", record["metrics"], install_time=moment(stack.clock.now()))
