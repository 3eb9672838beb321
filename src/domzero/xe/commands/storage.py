"""Commands on repositories, disks, drives and the plugs between hosts and repositories."""

from __future__ import annotations

import asyncio

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF
from domzero.xe.arguments import choice, flag, host, integer, mapping, message, obj, text
from domzero.xe.command import Command
from domzero.xe.commands.drives import drive
from domzero.xe.talk import Talk
from domzero.xe.values import fraction, number, word

AGAIN = 1.0
"""Seconds after which a guest is asked again to let go of a drive."""
STILL_USED = ("DEVICE_DETACH_REJECTED", "DEVICE_DETACH_TIMEOUT")


async def _vdi_create(talk: Talk) -> None:
    line = talk.line
    ref = await talk.api.call(
        "VDI.create",
        {
            "name_label": line.need("name-label"), "name_description": line.get("name-description") or "",
            "SR": await talk.by_uuid("SR", line.need("sr-uuid")),
            "virtual_size": number("virtual-size", line.need("virtual-size")),
            "type": word("type", line.get("type") or "user", tuple(talk.graph.enums["vdi_type"].values)),
            "sharable": line.flag("sharable"), "read_only": line.flag("read-only"),
            "other_config": line.mapping("other-config"),
            "xenstore_data": line.mapping("xenstore-data"), "sm_config": line.mapping("sm-config"),
            "tags": list(line.mapping("tags").values()),
        },
    )  # fmt: skip
    await talk.value(await talk.uuid("VDI", ref))


async def _vdi_resize(talk: Talk) -> None:
    ref, size = await talk.by_uuid("VDI", talk.line.need("uuid")), number("disk-size", talk.line.need("disk-size"))
    await talk.api.call("VDI.resize_online" if talk.line.flag("online") else "VDI.resize", ref, size)


async def _vdi_clone(talk: Talk) -> None:
    ref = await talk.by_uuid("VDI", talk.line.need("uuid"))
    made = await talk.api.call("VDI.clone", ref, talk.line.mapping("driver-params"))
    for name in ("name-label", "name-description"):
        value = talk.line.get(f"new-{name}")
        if value is not None:
            await talk.api.call(f"VDI.set_{name.replace('-', '_')}", made, value)
    await talk.value(await talk.uuid("VDI", made))


async def _vbd_create(talk: Talk) -> None:
    line = talk.line
    disk = line.get("vdi-uuid")
    kind = word("type", line.get("type") or "Disk", ("Disk", "CD", "Floppy"))
    mode = word("mode", line.get("mode") or ("RO" if kind == "CD" else "RW"), ("RO", "RW"))
    unpluggable = line.get("unpluggable") is None or line.flag("unpluggable")
    record = drive(
        await talk.by_uuid("VM", line.need("vm-uuid")),
        NULL_REF if disk is None else await talk.by_uuid("VDI", disk),
        line.need("device"),
        bootable=line.flag("bootable"), mode=mode, type=kind, unpluggable=unpluggable, empty=disk is None,
    )  # fmt: skip
    await talk.value(await talk.uuid("VBD", await talk.api.call("VBD.create", record)))


async def _vbd_unplug(talk: Talk) -> None:
    """Detach a drive. A guest that still uses it is asked again until the time given is over."""
    ref = await talk.by_uuid("VBD", talk.line.need("uuid"))
    if talk.line.flag("force"):
        await talk.api.call("VBD.unplug_force", ref)
        return
    now = asyncio.get_running_loop().time
    end = now() + fraction("timeout", talk.line.get("timeout") or "0")
    while True:
        try:
            await talk.api.call("VBD.unplug", ref)
        except ApiError as error:
            left = end - now()
            if error.code not in STILL_USED or left <= 0:
                raise
            # A guest tells nobody that it has let go of a disk: only asking again shows it.
            await asyncio.sleep(min(AGAIN, left))
        else:
            return


async def _pbd_create(talk: Talk) -> None:
    record = {
        "host": await talk.by_uuid("host", talk.line.need("host-uuid")),
        "SR": await talk.by_uuid("SR", talk.line.need("sr-uuid")),
        "device_config": talk.line.mapping("device-config"),
        "other_config": {},
    }
    await talk.value(await talk.uuid("PBD", await talk.api.call("PBD.create", record)))


async def _probe_ext(talk: Talk) -> None:
    line = talk.line
    where = await host().convert(talk, line)
    found = await talk.api.call(
        "SR.probe_ext", where, line.mapping("device-config"), line.need("type"), line.mapping("sm-config")
    )
    for position, result in enumerate(found):
        await talk.message(f"Result {position}:")
        await talk.record([(name, str(value)) for name, value in result.items()])
    if not found:
        await talk.empty()


_CONFIG = mapping("device-config"), mapping("sm-config")

COMMANDS = (
    message("sr-create", "Prepare a place for disks, and attach all hosts or one to it.", "SR.create", host(),
            _CONFIG[0],
            integer("physical-size", 0), text("name-label"), text("name-description", ""), text("type"),
            text("content-type", ""), flag("shared"), _CONFIG[1], common=True),
    message("sr-introduce", "Make a repository known that exists already.", "SR.introduce", text("uuid"),
            text("name-label"), text("name-description", ""), text("type"), text("content-type", ""), flag("shared"),
            mapping("sm-config")),
    message("sr-probe", "Look for what a repository could be made of, or for repositories.", "SR.probe", host(),
            _CONFIG[0], text("type"), _CONFIG[1]),
    Command("sr-probe-ext", "Look for what a repository could be made of, in fields.", _probe_ext, ("type",),
            ("host-uuid", "device-config:", "sm-config:"), ("SR.probe_ext",)),
    message("sr-scan", "Bring the list of disks in line with what is there.", "SR.scan", obj("SR"), common=True),
    message("sr-destroy", "Remove a repository and everything in it.", "SR.destroy", obj("SR")),
    message("sr-forget", "Forget a repository, and leave what is in it.", "SR.forget", obj("SR")),
    message("sr-update", "Look again how full a repository is.", "SR.update", obj("SR")),
    message("sr-enable-database-replication", "Keep copies of the database there.", "SR.enable_database_replication",
            obj("SR")),
    message("sr-disable-database-replication", "Keep no more copies there.", "SR.disable_database_replication",
            obj("SR")),
    Command("vdi-create", "Make a disk.", _vdi_create, ("sr-uuid", "name-label", "virtual-size"),
            ("type", "name-description", "sharable", "read-only", "sm-config:", "other-config:", "xenstore-data:",
             "tags:"),
            ("VDI.create",), common=True),
    message("vdi-destroy", "Remove a disk for good.", "VDI.destroy", obj("VDI"), common=True),
    message("vdi-forget", "Forget a disk, and leave it where it is.", "VDI.forget", obj("VDI")),
    message("vdi-update", "Read again what the storage says of a disk.", "VDI.update", obj("VDI")),
    message("vdi-introduce", "Make a disk known that exists already.", "VDI.introduce", text("uuid"),
            text("name-label", ""), text("name-description", ""), obj("SR", "sr-uuid"), choice("type", "vdi_type"),
            flag("sharable"), flag("read-only"), mapping("other-config"), text("location"), mapping("xenstore-data"),
            mapping("sm-config"), flag("managed", True)),
    Command("vdi-resize", "Give a disk another size.", _vdi_resize, ("uuid", "disk-size"), ("online",), ("VDI.resize",),
            common=True),
    message("vdi-copy", "Copy a disk to a repository, or onto another disk.", "VDI.copy", obj("VDI"),
            obj("SR", "sr-uuid", optional=True), obj("VDI", "base-vdi-uuid", optional=True),
            obj("VDI", "into-vdi-uuid", optional=True), common=True),
    Command("vdi-clone", "Make a disk with the content of another.", _vdi_clone, ("uuid",),
            ("driver-params:", "new-name-label", "new-name-description"), ("VDI.clone",), common=True),
    message("vdi-snapshot", "Keep the present content of a disk.", "VDI.snapshot", obj("VDI"), mapping("driver-params"),
            common=True),
    message("vdi-enable-cbt", "Note from now on which blocks change.", "VDI.enable_cbt", obj("VDI")),
    message("vdi-disable-cbt", "Note changed blocks no more.", "VDI.disable_cbt", obj("VDI")),
    message("vdi-data-destroy", "Remove the content of a snapshot, but not what is noted of it.", "VDI.data_destroy",
            obj("VDI")),
    message("vdi-list-changed-blocks", "Tell which blocks differ between two disks.", "VDI.list_changed_blocks",
            obj("VDI", "vdi-from-uuid"), obj("VDI", "vdi-to-uuid")),
    message("vdi-pool-migrate", "Move a disk to another repository while its machine runs.", "VDI.pool_migrate",
            obj("VDI"), obj("SR", "sr-uuid"), mapping("options")),
    Command("vbd-create", "Give a machine a drive.", _vbd_create, ("vm-uuid", "device"),
            ("vdi-uuid", "bootable", "type", "mode", "unpluggable"), ("VBD.create",)),
    message("vbd-destroy", "Take a drive away.", "VBD.destroy", obj("VBD")),
    message("vbd-insert", "Put a disc into a drive.", "VBD.insert", obj("VBD"), obj("VDI", "vdi-uuid")),
    message("vbd-eject", "Take the disc out of a drive.", "VBD.eject", obj("VBD")),
    message("vbd-plug", "Attach a drive to a running machine.", "VBD.plug", obj("VBD")),
    Command("vbd-unplug", "Detach a drive from a running machine.", _vbd_unplug, ("uuid",), ("timeout", "force"),
            ("VBD.unplug", "VBD.unplug_force")),
    Command("pbd-create", "Say how a host reaches a repository.", _pbd_create, ("host-uuid", "sr-uuid"),
            ("device-config:",), ("PBD.create",)),
    message("pbd-destroy", "Forget how a host reaches a repository.", "PBD.destroy", obj("PBD")),
    message("pbd-plug", "Attach a host to a repository.", "PBD.plug", obj("PBD")),
    message("pbd-unplug", "Detach a host from a repository.", "PBD.unplug", obj("PBD")),
    message("lvhd-enable-thin-provisioning", "Make disks that grow as they fill.", "LVHD.enable_thin_provisioning",
            host(), obj("SR", "sr-uuid"), integer("initial-allocation"), integer("allocation-quantum")),
    message("crashdump-destroy", "Remove what was kept of a crash.", "crashdump.destroy", obj("crashdump")),
)  # fmt: skip
