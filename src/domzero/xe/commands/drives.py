"""Commands on the drives, cards and sizes of machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF
from domzero.xe.arguments import each, flag, for_each, integer
from domzero.xe.command import Command
from domzero.xe.commands.machines import ANY_MACHINE, chosen_repository, default_repository, of_snapshot
from domzero.xe.errors import CommandError
from domzero.xe.generated import show
from domzero.xe.talk import Talk
from domzero.xe.values import fraction, number
from domzero.xe.view import Object

VBD_COLUMNS = ("uuid", "vm-name-label", "userdevice")
VDI_COLUMNS = ("uuid", "name-label", "sr-name-label", "virtual-size")
CD_VBD_COLUMNS = ("uuid", "vm-name-label", "userdevice", "empty")


async def _drives(talk: Talk, machine: str, kinds: Sequence[str]) -> list[tuple[str, Object]]:
    """The drives of a machine, in the order of their positions."""
    found = [(ref, await talk.api.call("VBD.get_record", ref)) for ref in await talk.api.call("VM.get_VBDs", machine)]
    chosen = [(ref, record) for ref, record in found if record["type"] in kinds]
    return sorted(chosen, key=lambda pair: (len(pair[1]["userdevice"]), pair[1]["userdevice"]))


async def _list_drives(talk: Talk, machine: str, kind: str, title: str, vbd_columns: Sequence[str]) -> None:
    """Print each drive and what is in it."""
    for position, (ref, record) in enumerate(await _drives(talk, machine, (kind,))):
        await talk.message(f"{title} {position} VBD:")
        await show(talk, talk.records["vbd"], [(ref, record)], talk.line.get("vbd-params"), vbd_columns)
        if record["empty"] or record["VDI"] == NULL_REF:
            await talk.message(f"No {title} {position} VDI.")
            continue
        disk = await talk.api.call("VDI.get_record", record["VDI"])
        await talk.message(f"{title} {position} VDI:")
        await show(talk, talk.records["vdi"], [(record["VDI"], disk)], talk.line.get("vdi-params"), VDI_COLUMNS)
    await talk.empty()


async def _disk_list(talk: Talk, ref: str, _: Object) -> None:
    await _list_drives(talk, ref, "Disk", "Disk", VBD_COLUMNS)


async def _cd_list(talk: Talk, ref: str, _: Object) -> None:
    await _list_drives(talk, ref, "CD", "CD", CD_VBD_COLUMNS)


async def _snapshot_disks(talk: Talk) -> None:
    await _list_drives(talk, await of_snapshot(talk), "Disk", "Disk", VBD_COLUMNS)


def drive(machine: str, disk: str, device: str, **fields: object) -> Mapping[str, object]:
    """The record of a drive to make."""
    return {
        "VM": machine, "VDI": disk, "userdevice": device, "bootable": False, "mode": "RW", "type": "Disk",
        "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        **fields,
    }  # fmt: skip


async def _attach(talk: Talk, record: Mapping[str, object]) -> None:
    """Make a drive, and plug it where the machine runs. No drive is left where that fails. Raises `ApiError`."""
    vbd = await talk.api.call("VBD.create", record)
    try:
        if await talk.api.call("VM.get_power_state", record["VM"]) == "Running":
            await talk.api.call("VBD.plug", vbd)
    except ApiError:
        await talk.api.call("VBD.destroy", vbd)
        raise


async def _disk_add(talk: Talk, ref: str, record: Object) -> None:
    size, device = number("disk-size", talk.line.need("disk-size")), talk.line.need("device")
    repository = await chosen_repository(talk)
    if repository == NULL_REF:
        repository = await default_repository(talk)
    disk = await talk.api.call(
        "VDI.create",
        {
            "name_label": f"Disk {device} of {record['name_label']}", "name_description": "", "SR": repository,
            "virtual_size": size, "type": "user", "sharable": False, "read_only": False, "other_config": {},
        },
    )  # fmt: skip
    try:
        await _attach(talk, drive(ref, disk, device))
    except ApiError:
        await talk.api.call("VDI.destroy", disk)
        raise


async def _disk_remove(talk: Talk, ref: str, _: Object) -> None:
    device = talk.line.need("device")
    for vbd, record in await _drives(talk, ref, ("Disk",)):
        if device in (record["userdevice"], record["device"]):
            await talk.api.call("VBD.destroy", vbd)
            await talk.api.call("VDI.destroy", record["VDI"])
            return
    raise CommandError(f"There is no disk at the position {device}")


async def _discs(talk: Talk) -> list[tuple[str, Object]]:
    """The discs and images in repositories for them."""
    await talk.view.load(("VDI", "SR"))
    repositories = talk.view.table("SR")
    return [
        (ref, record)
        for ref, record in talk.view.table("VDI").items()
        if record["SR"] in repositories and repositories[record["SR"]]["content_type"] == "iso"
    ]


async def _disc(talk: Talk) -> str:
    name = talk.line.need("cd-name")
    found = [ref for ref, record in await _discs(talk) if name in (record["name_label"], record["uuid"])]
    if len(found) != 1:
        raise CommandError(f"{'No' if not found else 'More than one'} CD is called {name}")
    return found[0]


async def _cds(talk: Talk) -> None:
    await show(talk, talk.records["vdi"], await _discs(talk), talk.line.get("params"), ("uuid", "name-label"))


async def _cd_add(talk: Talk, ref: str, _: Object) -> None:
    await _attach(talk, drive(ref, await _disc(talk), talk.line.need("device"), type="CD", mode="RO"))


async def _cd_remove(talk: Talk, ref: str, _: Object) -> None:
    disc = await _disc(talk)
    for vbd, record in await _drives(talk, ref, ("CD",)):
        if record["VDI"] == disc:
            await talk.api.call("VBD.destroy", vbd)
            return
    raise CommandError("That CD is in no drive of the machine")


async def _cd_drive(talk: Talk, ref: str, *, empty: bool) -> str:
    """The one CD drive that is empty, or that is not. Raises `CommandError`."""
    found = [vbd for vbd, record in await _drives(talk, ref, ("CD",)) if record["empty"] == empty]
    state = "empty" if empty else "full"
    if len(found) != 1:
        raise CommandError(f"The machine has {'no' if not found else 'more than one'} {state} CD drive")
    return found[0]


async def _cd_eject(talk: Talk, ref: str, _: Object) -> None:
    await talk.api.call("VBD.eject", await _cd_drive(talk, ref, empty=False))


async def _cd_insert(talk: Talk, ref: str, _: Object) -> None:
    disc = await _disc(talk)
    await talk.api.call("VBD.insert", await _cd_drive(talk, ref, empty=True), disc)


async def _vif_list(talk: Talk, _: str, machine: Object) -> None:
    found = [(ref, await talk.api.call("VIF.get_record", ref)) for ref in machine["VIFs"]]
    await show(talk, talk.records["vif"], found, talk.line.get("params"),
               ("uuid", "device", "MAC", "network-uuid", "network-name-label", "vm-name-label"))  # fmt: skip


async def _crashdump_list(talk: Talk, _: str, machine: Object) -> None:
    found = [(ref, await talk.api.call("crashdump.get_record", ref)) for ref in machine["crash_dumps"]]
    await show(talk, talk.records["crashdump"], found, talk.line.get("params"))


async def _shadow(talk: Talk, ref: str, machine: Object) -> None:
    value = fraction("multiplier", talk.line.need("multiplier"))
    live = machine["power_state"] != "Halted"
    await talk.api.call("VM.set_shadow_multiplier_live" if live else "VM.set_HVM_shadow_multiplier", ref, value)


_PARAMS = ("vbd-params", "vdi-params")

COMMANDS = (
    for_each("vm-disk-list", "Show the disks of machines.", "vm", _disk_list, (), _PARAMS, also=ANY_MACHINE,
             common=True),
    Command("snapshot-disk-list", "Show the disks of a snapshot.", _snapshot_disks, (),
            ("uuid", "snapshot-uuid", *_PARAMS), common=True),
    for_each("vm-disk-add", "Make a disk for a machine.", "vm", _disk_add, ("disk-size", "device"),
             ("sr-uuid", "sr-name-label"), ("VDI.create", "VBD.create"), also=("template",), common=True),
    for_each("vm-disk-remove", "Remove a disk of a machine for good.", "vm", _disk_remove, ("device",), (),
             ("VBD.destroy", "VDI.destroy"), also=("template",), common=True),
    for_each("vm-cd-list", "Show the CD drives of machines.", "vm", _cd_list, (), _PARAMS, also=ANY_MACHINE,
             common=True),
    for_each("vm-cd-add", "Give machines a CD drive with a CD in it.", "vm", _cd_add, ("cd-name", "device"), (),
             ("VBD.create",), common=True),
    for_each("vm-cd-remove", "Take away the CD drive that a CD is in.", "vm", _cd_remove, ("cd-name",), (),
             ("VBD.destroy",), common=True),
    for_each("vm-cd-eject", "Take the CD out of the drive.", "vm", _cd_eject, (), (), ("VBD.eject",), common=True),
    for_each("vm-cd-insert", "Put a CD into the empty drive.", "vm", _cd_insert, ("cd-name",), (), ("VBD.insert",),
             common=True),
    Command("cd-list", "Show the CDs that can be inserted.", _cds, (), ("params",), common=True),
    for_each("vm-vif-list", "Show the network cards of machines.", "vm", _vif_list, (), (), also=ANY_MACHINE,
             common=True),
    for_each("vm-crashdump-list", "Show what was kept of crashes.", "vm", _crashdump_list),
    each("vm-vcpu-hotplug", "Change the number of processors of running machines.", "vm", "VM.set_VCPUs_number_live",
         integer("new-vcpus")),
    each("vm-memory-dynamic-range-set", "Set the range that the memory may be changed in while a machine runs.", "vm",
         "VM.set_memory_dynamic_range", integer("min"), integer("max"), also=("template",)),
    each("vm-memory-static-range-set", "Set the range that the memory may be in at all.", "vm",
         "VM.set_memory_static_range", integer("min"), integer("max"), also=("template",)),
    each("vm-memory-limits-set", "Set all four limits of the memory.", "vm", "VM.set_memory_limits",
         integer("static-min"), integer("static-max"), integer("dynamic-min"), integer("dynamic-max"),
         also=("template",)),
    each("vm-memory-set", "Set all limits of the memory to one value.", "vm", "VM.set_memory", integer("memory"),
         also=("template",)),
    each("vm-memory-target-set", "Set how much memory a machine is to have.", "vm", "VM.set_memory_target_live",
         integer("target")),
    each("vm-memory-balloon", "The same as vm-memory-target-set.", "vm", "VM.set_memory_target_live", integer("target"),
         hidden=True),
    each("vm-memory-target-wait", "Wait until machines have the memory that they are to have.", "vm",
         "VM.wait_memory_target_live", hidden=True),
    for_each("vm-memory-shadow-multiplier-set", "Set the share of memory kept for shadow pages.", "vm", _shadow,
             ("multiplier",), (), ("VM.set_shadow_multiplier_live", "VM.set_HVM_shadow_multiplier")),
    each("vm-compute-maximum-memory", "Tell how much memory fits a machine within a total.", "vm", "VM.maximise_memory",
         integer("total"), flag("approximate"), common=True),
    each("vm-compute-memory-overhead", "Tell how much memory a machine takes besides its own.", "vm",
         "VM.compute_memory_overhead"),
)  # fmt: skip
