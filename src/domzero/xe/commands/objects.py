"""Commands that make an object out of the fields on the command line, and those that say all there is about one."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.idl.types import STRING, SetOf
from domzero.xe.arguments import (
    Argument,
    choice,
    coordinator,
    flag,
    for_each,
    integer,
    mapping,
    message,
    obj,
    objects,
    pool,
    text,
    typed,
)
from domzero.xe.command import Command
from domzero.xe.generated import show
from domzero.xe.records import RecordClass
from domzero.xe.talk import Talk
from domzero.xe.view import Object

FEATURES = "features_hvm_host"
"""The key of `cpu_info` that tells what the processors can do; older hosts have the second."""
OLDER_FEATURES = "features_hvm"


def made(name: str, doc: str, cls: str, fields: Mapping[str, Argument]) -> Command:
    """A command that makes an object of a class; each field comes from an argument. It prints the uuid."""

    async def run(talk: Talk) -> None:
        record = {field: await argument.convert(talk, talk.line) for field, argument in fields.items()}
        await talk.value(await talk.uuid(cls, await talk.api.call(f"{cls}.create", record)))

    named = [argument for argument in fields.values() if argument.name]
    return Command(name, doc, run, tuple(argument.name for argument in named if argument.required),
                   tuple(argument.name for argument in named if not argument.required), (f"{cls}.create",))  # fmt: skip


async def _cache_storage(talk: Talk, host: str, _: Object) -> None:
    size = await integer("size").convert(talk, talk.line)
    record = {
        "host": host, "SR": await talk.by_uuid("SR", talk.line.need("sr-uuid")),
        "site": await talk.by_uuid("PVS_site", talk.line.need("pvs-site-uuid")), "size": size,
    }  # fmt: skip
    made = await talk.api.call("PVS_cache_storage.create", record)
    await talk.value(await talk.uuid("PVS_cache_storage", made))


async def _pool_features(talk: Talk) -> None:
    await _features(talk, await talk.api.call("pool.get_cpu_info", await pool(talk)))


async def _host_features(talk: Talk) -> None:
    uuid = talk.line.get("uuid")
    ref = await talk.by_uuid("host", uuid) if uuid else await coordinator(talk)
    await _features(talk, await talk.api.call("host.get_cpu_info", ref))


async def _features(talk: Talk, info: Mapping[str, str]) -> None:
    await talk.value(info.get(FEATURES, info.get(OLDER_FEATURES, "")))


async def _about_a_machine(talk: Talk) -> None:
    ref = await talk.by_uuid("VM", talk.line.need("uuid"))
    await _show(talk, talk.records["vm"], ref)
    for vbd in await talk.api.call("VM.get_VBDs", ref):
        await _show(talk, talk.records["vbd"], vbd)


async def _about_a_disk(talk: Talk) -> None:
    ref = await talk.by_uuid("VDI", talk.line.need("uuid"))
    await _show(talk, talk.records["vdi"], ref)
    for vbd in await talk.api.call("VDI.get_VBDs", ref):
        await _show(talk, talk.records["vbd"], vbd)


async def _show(talk: Talk, kind: RecordClass, ref: str) -> None:
    await talk.view.load((kind.cls,))
    record = talk.view.table(kind.cls).get(ref)
    if record is not None:
        await show(talk, kind, [(ref, record)], "all", ())


COMMANDS = (
    made("vmss-create", "Make a schedule by which machines are snapshotted.", "VMSS", {
        "name_label": text("name-label"), "name_description": text("name-description", ""),
        "type": choice("type", "vmss_type"), "frequency": choice("frequency", "vmss_frequency"),
        "enabled": flag("enabled", True), "schedule": mapping("schedule"),
        "retained_snapshots": integer("retained-snapshots", 7),
    }),
    message("vmss-destroy", "Remove a schedule; snapshots stay.", "VMSS.destroy", obj("VMSS")),
    made("observer-create", "Have the work of hosts traced.", "Observer", {
        "name_label": text("name-label"), "name_description": text("name-description", ""),
        "hosts": objects("host", "host-uuids", optional=True), "enabled": flag("enabled"),
        "attributes": mapping("attributes"), "endpoints": typed("endpoints", SetOf(STRING), ["bugtool"]),
        "components": typed("components", SetOf(STRING), []),
    }),
    message("observer-destroy", "Trace no more.", "Observer.destroy", obj("Observer")),
    for_each("pvs-cache-storage-create", "Let a host keep what provisioning services stream.", "host", _cache_storage,
             ("sr-uuid", "pvs-site-uuid", "size"), (), ("PVS_cache_storage.create",)),
    message("pvs-cache-storage-destroy", "Keep it no more.", "PVS_cache_storage.destroy", obj("PVS_cache_storage")),
    Command("pool-get-cpu-features", "Tell what all processors of the pool can do.", _pool_features, (), (),
            ("pool.get_cpu_info",)),
    Command("host-get-cpu-features", "Tell what the processors of a host can do.", _host_features, (), ("uuid",),
            ("host.get_cpu_info",)),
    Command("diagnostic-vm-status", "Show all about a machine and its drives.", _about_a_machine, ("uuid",),
            common=True),
    Command("diagnostic-vdi-status", "Show all about a disk and the drives that it is in.", _about_a_disk, ("uuid",)),
)  # fmt: skip
