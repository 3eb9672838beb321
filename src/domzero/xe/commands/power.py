"""Commands on the life of a machine."""

from __future__ import annotations

from domzero.xe.arguments import coordinator, each, for_each
from domzero.xe.command import Command
from domzero.xe.errors import CommandError, missing
from domzero.xe.talk import Talk
from domzero.xe.view import Object

MIGRATION = ("force", "copy", "compress")
"""Options of a migration that are handed on where they are given."""


async def named_host(talk: Talk, wanted: str) -> str:
    """The host of a uuid, a name or a host name. Raises `CommandError` unless there is exactly one."""
    await talk.view.load(("host",))
    found = [
        ref
        for ref, record in talk.view.table("host").items()
        if wanted in (record["uuid"], record["name_label"], record["hostname"])
    ]
    if len(found) != 1:
        raise CommandError("No matching hosts found" if not found else "Multiple matches hosts found.")
    return found[0]


async def _start(talk: Talk, ref: str, _: Object) -> None:
    on, paused, force = talk.line.get("on"), talk.line.flag("paused"), talk.line.flag("force")
    if on is None:
        await talk.api.call("VM.start", ref, paused, force)
    else:
        await talk.api.call("VM.start_on", ref, await named_host(talk, on), paused, force)


async def _resume(talk: Talk, ref: str, _: Object) -> None:
    on, force = talk.line.get("on"), talk.line.flag("force")
    if on is None:
        await talk.api.call("VM.resume", ref, False, force)
    else:
        await talk.api.call("VM.resume_on", ref, await named_host(talk, on), False, force)


async def _shutdown(talk: Talk, ref: str, _: Object) -> None:
    await talk.api.call("VM.hard_shutdown" if talk.line.flag("force") else "VM.clean_shutdown", ref)


async def _reboot(talk: Talk, ref: str, _: Object) -> None:
    await talk.api.call("VM.hard_reboot" if talk.line.flag("force") else "VM.clean_reboot", ref)


async def _migrate(talk: Talk, ref: str, _: Object) -> None:
    uuid, name = talk.line.get("host-uuid"), talk.line.get("host")
    if uuid is None and name is None:
        raise missing("host")
    target = await talk.by_uuid("host", uuid) if uuid is not None else await named_host(talk, name or "")
    given = ("live", *(name for name in MIGRATION if talk.line.get(name) is not None))
    await talk.api.call("VM.pool_migrate", ref, target, {name: str(talk.line.flag(name)).lower() for name in given})


def demand_force(talk: Talk, danger: str) -> None:
    """Raise `CommandError` unless the caller says that the danger is known."""
    if not talk.line.flag("force"):
        raise CommandError(f"{danger} Give --force if that is what you want.")


async def _reset(talk: Talk, ref: str, _: Object) -> None:
    """Declare a machine halted. Raises `CommandError` without `--force`."""
    demand_force(
        talk, "A machine that still runs somewhere damages its disks once it is started a second time elsewhere."
    )
    await talk.api.call("VM.power_state_reset", ref)


async def _call_plugin(talk: Talk) -> None:
    arguments = talk.line.mapping("args")
    vm = await talk.by_uuid("VM", talk.line.need("vm-uuid"))
    resident = await talk.api.call("VM.get_resident_on", vm)
    where = resident if resident != "OpaqueRef:NULL" else await coordinator(talk)
    plugin, function = talk.line.need("plugin"), talk.line.need("fn")
    await talk.value(await talk.api.call("host.call_plugin", where, plugin, function, arguments))


async def _call_guest_plugin(talk: Talk) -> None:
    vm, arguments = await talk.by_uuid("VM", talk.line.need("vm-uuid")), talk.line.mapping("args")
    plugin, function = talk.line.need("plugin"), talk.line.need("fn")
    await talk.value(await talk.api.call("VM.call_plugin", vm, plugin, function, arguments))


COMMANDS = (
    for_each("vm-start", "Start the machines selected, on a certain host where `on` names one.", "vm", _start,
             (), ("force", "on", "paused"), ("VM.start", "VM.start_on"), common=True),
    each("vm-suspend", "Save the machines selected to disk and stop them.", "vm", "VM.suspend", common=True),
    for_each("vm-resume", "Let suspended machines go on.", "vm", _resume, (), ("force", "on"),
             ("VM.resume", "VM.resume_on"), common=True),
    for_each("vm-shutdown", "Ask the guests to shut down; with --force the power is cut.", "vm", _shutdown, (),
             ("force",),
             ("VM.clean_shutdown", "VM.hard_shutdown"), common=True),
    for_each("vm-reboot", "Ask the guests to start again; with --force they are reset.", "vm", _reboot, (), ("force",),
             ("VM.clean_reboot", "VM.hard_reboot"), common=True),
    each("vm-pause", "Hold the machines selected.", "vm", "VM.pause", common=True),
    each("vm-unpause", "Let paused machines go on.", "vm", "VM.unpause", common=True),
    for_each("vm-migrate", "Move running machines to another host of the pool.", "vm", _migrate, (),
             ("live", "host", "host-uuid", *MIGRATION), ("VM.pool_migrate",), common=True),
    for_each("vm-reset-powerstate", "Declare machines halted that nothing runs any more.", "vm", _reset, (), ("force",),
             ("VM.power_state_reset",), common=True),
    Command("vm-call-host-plugin", "Call a plug-in of the host that a machine runs on.", _call_plugin,
            ("vm-uuid", "plugin", "fn"), ("args:",), ("host.call_plugin",)),
    Command("vm-call-plugin", "Have the guest's agent do something.", _call_guest_plugin, ("vm-uuid", "plugin", "fn"),
            ("args:",), ("VM.call_plugin",)),
    each("vm-restart-device-models", "Renew the processes that emulate devices.", "vm", "VM.restart_device_models"),
    each("vm-query-services", "Show the services that machines offer.", "vm", "VM.query_services", hidden=True),
)  # fmt: skip
