"""Commands that make and remove machines, templates and snapshots."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF
from domzero.xe.arguments import coordinator, each, either, for_each, message, obj, pool, to_each
from domzero.xe.command import Command
from domzero.xe.commands.power import demand_force
from domzero.xe.errors import CommandError, missing
from domzero.xe.filtering import selected
from domzero.xe.talk import Talk
from domzero.xe.view import Object

ANY_MACHINE = ("template", "snapshot")
"""Besides machines: whatever can be copied or looked at like one."""

_REPOSITORY = re.compile(r"""(\ssr=)("[^"]*"|'[^']*')""")


def _copying(method: str) -> Callable[[Talk, str, Object], Awaitable[None]]:
    """What makes a machine out of each one selected, and prints its uuid."""

    async def one(talk: Talk, ref: str, _: Object) -> None:
        await copied(talk, method, ref)

    return one


async def copied(talk: Talk, method: str, ref: str) -> None:
    """Make a machine out of another by a message, describe it, and print its uuid."""
    params: list[Any] = [talk.line.need("new-name-label")]
    if method == "VM.copy":
        uuid = talk.line.get("sr-uuid")
        params.append(NULL_REF if uuid is None else await talk.by_uuid("SR", uuid))
    elif method == "VM.snapshot" and (ignored := talk.line.get("ignore-vdi-uuids")):
        params.append([await talk.by_uuid("VDI", uuid) for uuid in ignored.split(",") if uuid])
    made = await talk.api.call(method, ref, *params)
    description = talk.line.get("new-name-description")
    if description is not None:
        await talk.api.call("VM.set_name_description", made, description)
    await talk.value(await talk.uuid("VM", made))


async def of_snapshot(talk: Talk) -> str:
    """The snapshot of `snapshot-uuid` or `uuid`. Raises `CommandError` for a machine that is none."""
    uuid = talk.line.get("snapshot-uuid") or talk.line.get("uuid")
    if uuid is None:
        raise missing("snapshot-uuid")
    ref = await talk.by_uuid("VM", uuid)
    if not await talk.api.call("VM.get_is_a_snapshot", ref):
        raise CommandError(f"{uuid} is no snapshot")
    return ref


async def _template(talk: Talk) -> str:
    """The template that the command line names. Raises `CommandError` unless there is exactly one."""
    uuid = talk.line.get("template-uuid")
    name = next(
        (value for key in ("template", "template-name-label", "template-name") if (value := talk.line.get(key))), None
    )
    if uuid is None and name is None:
        raise missing("template")
    await talk.view.load(("VM",))
    found = [
        ref
        for ref, record in talk.view.table("VM").items()
        if record["is_a_template"]
        and ((uuid is not None and record["uuid"] == uuid) or name in (record["uuid"], record["name_label"]))
    ]
    if len(found) != 1:
        raise CommandError("No matching templates found" if not found else "Multiple matches templates found.")
    return found[0]


async def chosen_repository(talk: Talk) -> str:
    """The repository of `sr-uuid` or `sr-name-label`, or `NULL_REF`. Raises `CommandError`, `ApiError`."""
    uuid, name = talk.line.get("sr-uuid"), talk.line.get("sr-name-label")
    if uuid is not None:
        return await talk.by_uuid("SR", uuid)
    if name is None:
        return NULL_REF
    found = await talk.api.call("SR.get_by_name_label", name)
    if len(found) != 1:
        raise CommandError("No matching SRs found" if not found else "Multiple matches SRs found.")
    return str(found[0])


async def default_repository(talk: Talk) -> str:
    """The pool's default repository. Raises `CommandError` when it has none."""
    ref = str(await talk.api.call("pool.get_default_SR", await pool(talk)))
    if ref == NULL_REF:
        raise CommandError("The pool has no default SR. Name one with sr-uuid or sr-name-label.")
    return ref


async def _install(talk: Talk) -> None:
    """A machine from a template: its disks are made in the repository chosen, or the pool's default one."""
    template, name = await _template(talk), talk.line.need("new-name-label")
    repository = await chosen_repository(talk)
    disks = (await talk.api.call("VM.get_other_config", template)).get("disks")
    if disks is None and repository != NULL_REF:
        made = await talk.api.call("VM.copy", template, name, repository)
    else:
        made = await talk.api.call("VM.clone", template, name)
    try:
        if disks is not None:
            await _place_disks(talk, made, disks, repository)
        bios = talk.line.get("copy-bios-strings-from")
        if bios is not None:
            await talk.api.call("VM.copy_bios_strings", made, await talk.by_uuid("host", bios))
        await talk.api.call("VM.provision", made)
    except (ApiError, CommandError):
        await _remove(talk, made, [disk for disk, _, _ in await _own_disks(talk, made)])
        raise
    await talk.value(await talk.uuid("VM", made))


async def _place_disks(talk: Talk, machine: str, disks: str, repository: str) -> None:
    """Have the disks that the template asks for made in a repository."""
    if repository == NULL_REF:
        if not any(len(match[2]) == 2 for match in _REPOSITORY.finditer(disks)):
            return
        repository = await default_repository(talk)
    uuid = await talk.uuid("SR", repository)
    placed = _REPOSITORY.sub(lambda match: f'{match[1]}"{uuid}"', disks)
    await talk.api.call("VM.remove_from_other_config", machine, "disks")
    await talk.api.call("VM.add_to_other_config", machine, "disks", placed)


async def _own_disks(talk: Talk, ref: str) -> list[tuple[str, str, str]]:
    """The disks that no other machine uses: reference, uuid, name."""
    found: list[tuple[str, str, str]] = []
    for vbd in await talk.api.call("VM.get_VBDs", ref):
        drive = await talk.api.call("VBD.get_record", vbd)
        if drive["type"] != "Disk" or drive["empty"] or drive["VDI"] == NULL_REF:
            continue
        disk = await talk.api.call("VDI.get_record", drive["VDI"])
        owners = {await talk.api.call("VBD.get_VM", other) for other in disk["VBDs"]}
        if owners == {ref} and not disk["sharable"]:
            found.append((drive["VDI"], disk["uuid"], disk["name_label"]))
    return found


async def uninstall(talk: Talk, name: str, chosen: Sequence[tuple[str, Object]]) -> None:
    """Remove machines with their disks, once a person has said so to all of them or `--force` was given."""
    disks = {ref: await _own_disks(talk, ref) for ref, _ in chosen}
    if not talk.line.flag("force"):
        items = [
            item
            for ref, record in chosen
            for item in (
                f"VM : {record['uuid']} ({record['name_label']})",
                *(f"VDI: {uuid} ({label})" for _, uuid, label in disks[ref]),
            )
        ]
        await talk.confirm("\n".join(["The following items are about to be destroyed", *items]))

    async def one(talk: Talk, ref: str, record: Object) -> None:
        if await talk.api.call("VM.get_power_state", ref) != "Halted" and not record["is_a_template"]:
            await talk.api.call("VM.hard_shutdown", ref)
        await _remove(talk, ref, [disk for disk, _, _ in disks[ref]])

    await to_each(talk, name, chosen, one)
    await talk.message("All objects destroyed")


async def _remove(talk: Talk, ref: str, disks: Sequence[str]) -> None:
    """Remove a machine that does not run, and disks. Raises `ApiError`."""
    await talk.api.call("VM.destroy", ref)
    for disk in disks:
        await talk.api.call("VDI.destroy", disk)


async def _uninstall(talk: Talk) -> None:
    await uninstall(talk, "vm-uninstall", await selected(talk, (talk.records["vm"],), "vm", {"force"}))


async def _uninstall_template(talk: Talk) -> None:
    ref = await talk.by_uuid("VM", talk.line.need("template-uuid"))
    await uninstall(talk, "template-uninstall", [(ref, await talk.api.call("VM.get_record", ref))])


async def _uninstall_snapshot(talk: Talk) -> None:
    ref = await of_snapshot(talk)
    await uninstall(talk, "snapshot-uninstall", [(ref, await talk.api.call("VM.get_record", ref))])


async def _snapshot_clone(talk: Talk) -> None:
    await copied(talk, "VM.clone", await of_snapshot(talk))


async def _snapshot_copy(talk: Talk) -> None:
    await copied(talk, "VM.copy", await of_snapshot(talk))


async def _snapshot_destroy(talk: Talk) -> None:
    await talk.api.call("VM.destroy", await of_snapshot(talk))


async def _snapshot_reset(talk: Talk) -> None:
    """Drop the memory of a checkpoint: no domain belongs to it, so that is the end of it as of a suspended machine."""
    ref = await of_snapshot(talk)
    demand_force(talk, "The memory that was saved with the disks goes.")
    await talk.api.call("VM.hard_shutdown", ref)


async def _customized(talk: Talk, _: str, machine: Object) -> None:
    strings = machine["bios_strings"]
    await talk.value(
        "This machine has BIOS strings of its own." if strings else "This machine has no BIOS strings yet."
    )


async def _create(talk: Talk) -> None:
    """A machine with the least that one can have."""
    memory = 256 << 20
    ref = await talk.api.call(
        "VM.create",
        {
            "name_label": talk.line.need("name-label"),
            "name_description": talk.line.get("name-description") or "",
            "user_version": 0, "is_a_template": False, "affinity": await coordinator(talk),
            "memory_static_max": memory, "memory_dynamic_max": memory, "memory_dynamic_min": memory,
            "memory_static_min": 0, "VCPUs_params": {}, "VCPUs_max": 1, "VCPUs_at_startup": 1,
            "actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
            "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
            "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cdn"}, "platform": {},
            "PCI_bus": "", "other_config": {}, "recommendations": "",
        },
    )  # fmt: skip
    await talk.value(await talk.uuid("VM", ref))


_COPY = ("new-name-label",), ("new-name-description",)
_SNAPSHOT = ("uuid", "snapshot-uuid")

COMMANDS = (
    Command("vm-install", "Make a machine from a template, disks included.", _install, ("new-name-label",),
            ("template", "template-uuid", "template-name", "sr-name-label", "sr-uuid", "copy-bios-strings-from"),
            ("VM.clone", "VM.provision"), common=True),
    Command("vm-uninstall", "Remove machines with their disks.", _uninstall, (), ("force",), ("VM.destroy",),
            selector="vm", common=True),
    Command("vm-create", "Make a machine without disks.", _create, ("name-label",), ("name-description",),
            ("VM.create",),
            hidden=True),
    each("vm-copy-bios-strings", "Give machines the BIOS strings of a host.", "vm", "VM.copy_bios_strings",
         obj("host", "host-uuid")),
    for_each("vm-is-bios-customized", "Tell whether machines have BIOS strings of their own.", "vm", _customized),
    message("vm-destroy", "Remove a machine, and leave its disks.", "VM.destroy", obj("VM")),
    for_each("vm-clone", "Make a machine like another, sharing unchanged parts of the disks where storage can.", "vm",
             _copying("VM.clone"), *_COPY, ("VM.clone",), ANY_MACHINE, common=True),
    for_each("vm-copy", "Make a machine like another, with full copies of its disks.", "vm", _copying("VM.copy"),
             ("new-name-label",), ("new-name-description", "sr-uuid"), ("VM.copy",), ANY_MACHINE, common=True),
    for_each("vm-snapshot", "Keep the present state of the disks.", "vm", _copying("VM.snapshot"), ("new-name-label",),
             ("new-name-description", "ignore-vdi-uuids"), ("VM.snapshot",), common=True),
    for_each("vm-snapshot-with-quiesce", "Keep the state of the disks when the guest has settled them.", "vm",
             _copying("VM.snapshot_with_quiesce"), *_COPY, ("VM.snapshot_with_quiesce",), common=True),
    for_each("vm-checkpoint", "Keep the present state of disks and memory.", "vm", _copying("VM.checkpoint"), *_COPY,
             ("VM.checkpoint",), common=True),
    message("snapshot-revert", "Take a machine back to a snapshot.", "VM.revert",
            either("VM", "snapshot-uuid", "uuid"), common=True),
    Command("snapshot-clone", "Make a template from a snapshot, sharing disks where storage can.", _snapshot_clone,
            ("new-name-label",), (*_SNAPSHOT, "new-name-description"), ("VM.clone",), common=True),
    Command("snapshot-create-template", "Make a template from a snapshot.", _snapshot_clone,
            ("new-name-label", "snapshot-uuid"), ("new-name-description",), ("VM.clone",), common=True),
    Command("snapshot-copy", "Make a template from a snapshot, with full copies of its disks.", _snapshot_copy,
            ("new-name-label",), (*_SNAPSHOT, "new-name-description", "sr-uuid"), ("VM.copy",), common=True),
    Command("snapshot-uninstall", "Remove a snapshot with its disks.", _uninstall_snapshot, (), (*_SNAPSHOT, "force"),
            ("VM.destroy",), common=True),
    Command("snapshot-destroy", "Remove a snapshot, and leave its disks.", _snapshot_destroy, (), _SNAPSHOT,
            ("VM.destroy",)),
    Command("snapshot-reset-powerstate", "Declare a suspended snapshot halted.", _snapshot_reset, (),
            (*_SNAPSHOT, "force"), ("VM.hard_shutdown",), common=True),
    Command("template-uninstall", "Remove a template with its disks.", _uninstall_template, ("template-uuid",),
            ("force",),
            ("VM.destroy",), common=True),
)  # fmt: skip
