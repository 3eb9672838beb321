"""Commands that move files between the client and pages of the host."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from urllib.parse import urlencode

from domzero.engine.coercion import printable
from domzero.engine.errors import ApiError
from domzero.xe.arguments import for_each
from domzero.xe.command import Command
from domzero.xe.commands.machines import ANY_MACHINE, chosen_repository, of_snapshot
from domzero.xe.errors import CommandError
from domzero.xe.line import truth
from domzero.xe.talk import Talk
from domzero.xe.view import Object

UNDER_WAY = ("pending", "cancelling")
WAIT = 30.0
"""Seconds that one call for events may wait."""
GRACE = 5.0
"""Seconds that a task may take to say why it failed, once the client has told that its part did."""
_REFERENCE = re.compile(r"OpaqueRef:[0-9a-f-]+")


async def transfer(talk: Talk, verb: str, name: str, path: str, query: Mapping[str, str]) -> str:
    """Have the client send (`PUT`) or fetch (`GET`) a file, under a task; the task's result.

    Raises `ApiError` with what the task failed with, `CommandError` when the client could not do its part.
    """
    # A file's name may hold bytes that are no text, which is all that the API takes.
    task = await talk.api.call("task.create", talk.line.command, printable(name))
    try:
        given = {"session_id": talk.api.session, "task_id": task, **query}
        arguments = urlencode(given, errors="surrogateescape")
        move = talk.client.put if verb == "PUT" else talk.client.fetch
        moved = await move(name, f"{path}?{arguments}")
        status, record = await (_ended(talk, task) if moved else _ended_soon(talk, task))
        if moved and status == "success":
            return str(record["result"])
        if status in (*UNDER_WAY, "success"):
            raise CommandError(f"The file {name} was not transferred")
        info = record["error_info"] or ("TASK_CANCELLED", task)
        raise ApiError(*info)
    finally:
        await _forget(talk, task)


async def _looked_at(talk: Talk, task: str) -> tuple[str, Object]:
    record = await talk.api.call("task.get_record", task)
    return record["status"], record


async def _ended(talk: Talk, task: str) -> tuple[str, Object]:
    """The task, once it is over."""
    token = ""
    while True:
        status, record = await _looked_at(talk, task)
        if status not in UNDER_WAY:
            return status, record
        token = (await talk.api.call("event.from", [f"task/{task}"], token, WAIT if token else 0.0))["token"]


async def _ended_soon(talk: Talk, task: str) -> tuple[str, Object]:
    """The task as it is. One that had begun when the client gave up may be about to say why."""
    if await talk.api.call("task.get_progress", task) > 0.0:
        try:
            async with asyncio.timeout(GRACE):
                return await _ended(talk, task)
        except TimeoutError:
            return await _looked_at(talk, task)
    return await _looked_at(talk, task)


async def _forget(talk: Talk, task: str) -> None:
    """Let go of a task. One that is still at it is asked to end, and goes once it has."""
    with suppress(ApiError):  # it cannot be stopped now
        if await talk.api.call("task.get_status", task) in UNDER_WAY:
            await talk.api.call("task.cancel", task)
    with suppress(ApiError):  # somebody else let go of it
        await talk.api.call("task.destroy", task)


async def _export(talk: Talk, ref: str) -> None:
    compress = talk.line.get("compress")
    query = {"ref": ref}
    if compress is not None:
        query["use_compression"] = (
            compress if compress in ("gzip", "zstd") else str(truth("compress", compress)).lower()
        )
    for param, name in (("preserve-power-state", "preserve_power_state"), ("include-snapshots", "export_snapshots")):
        if talk.line.get(param) is not None:
            query[name] = str(talk.line.flag(param)).lower()
    if (excluded := talk.line.get("excluded-device-types")) is not None:
        query["excluded_device_types"] = excluded
    path, name = "/export_metadata" if talk.line.flag("metadata") else "/export", talk.line.need("filename")
    await transfer(talk, "GET", name, path, query)
    if name:
        # Behind an archive that goes to standard output this would be a part of it.
        await talk.message("Export succeeded")


async def _vm_export(talk: Talk, ref: str, _: Object) -> None:
    await _export(talk, ref)


async def _template_export(talk: Talk) -> None:
    await _export(talk, await talk.by_uuid("VM", talk.line.need("template-uuid")))


async def _snapshot_export(talk: Talk) -> None:
    await _export(talk, await of_snapshot(talk))


async def _import(talk: Talk) -> None:
    repository = await chosen_repository(talk)
    restore, force = talk.line.flag("preserve"), talk.line.flag("force")
    if (url := talk.line.get("url")) is not None:
        made = await talk.api.call("VM.import", url, repository, restore, force)
        await talk.values([await talk.uuid("VM", ref) for ref in made])
        return
    query = {"restore": str(restore).lower(), "force": str(force).lower()}
    if talk.line.flag("metadata"):
        query |= {f"vdi:{uuid}": other for uuid, other in talk.line.mapping("vdi").items()}
        query["dry_run"] = str(talk.line.flag("dry-run")).lower()
    if repository != "OpaqueRef:NULL":
        query["sr_id"] = repository
    path = "/import_metadata" if talk.line.flag("metadata") else "/import"
    result = await transfer(talk, "PUT", talk.line.need("filename"), path, query)
    await talk.values([await talk.uuid("VM", ref) for ref in _REFERENCE.findall(result)])


async def _vdi_import(talk: Talk) -> None:
    ref = await talk.by_uuid("VDI", talk.line.need("uuid"))
    query = {"vdi": ref, "format": talk.line.get("format") or "raw"}
    await transfer(talk, "PUT", talk.line.need("filename"), "/import_raw_vdi", query)


async def _vdi_export(talk: Talk) -> None:
    ref = await talk.by_uuid("VDI", talk.line.need("uuid"))
    query = {"vdi": ref, "format": talk.line.get("format") or "raw"}
    base = talk.line.get("base")
    if base is not None:
        query["base"] = await talk.by_uuid("VDI", base)
    await transfer(talk, "GET", talk.line.need("filename"), "/export_raw_vdi", query)


def _of_host(
    verb: str, path: str, param: str, passed: tuple[str, ...] = ()
) -> Callable[[Talk, str, Object], Awaitable[None]]:
    async def one(talk: Talk, _ref: str, _record: Object) -> None:
        query = {name: value for name in passed if (value := talk.line.get(name)) is not None}
        await transfer(talk, verb, talk.line.need(param), path, query)

    return one


async def _logs(talk: Talk, ref: str, host: Object) -> None:
    """To the file that is named, else to one named after the host and the moment, as the original does."""
    name = talk.line.get("file-name")
    if name is None:
        now = await talk.api.call("host.get_servertime", ref)
        moment = f"{now[:4]}-{now[4:6]}-{now[6:]}"
        name = f"{re.sub(r'[^A-Za-z0-9.-]', '-', host['hostname']).strip('.-') or 'host'}-{moment}"
    await transfer(talk, "GET", name, "/host_logs_download", {})


async def _database(talk: Talk, verb: str) -> None:
    query = {"dry_run": "true"} if talk.line.flag("dry-run") else {}
    await transfer(talk, verb, talk.line.need("file-name"), "/pool/xmldbdump", query)


async def _dump(talk: Talk) -> None:
    await _database(talk, "GET")


async def _restore(talk: Talk) -> None:
    await _database(talk, "PUT")


async def _audit(talk: Talk) -> None:
    since = talk.line.get("since")
    query = {} if since is None else {"since": since}
    await transfer(talk, "GET", talk.line.need("filename"), "/audit_log", query)


async def _upload_patch(talk: Talk) -> None:
    result = await transfer(talk, "PUT", talk.line.need("file-name"), "/pool_patch_upload", {})
    await talk.values([await talk.uuid("pool_patch", ref) for ref in _REFERENCE.findall(result)])


async def _console(talk: Talk, _: str, machine: Object) -> None:
    """Join the client's terminal to the text console of a machine."""
    for ref in machine["consoles"]:
        if await talk.api.call("console.get_protocol", ref) == "vt100":
            arguments = urlencode({"ref": ref, "session_id": talk.api.session})
            if not await talk.client.connect(f"/console?{arguments}"):
                raise CommandError("The console could not be reached")
            return
    raise CommandError("The machine has no text console; only a running one has")


_EXPORT = ("preserve-power-state", "compress", "metadata", "include-snapshots", "excluded-device-types")

COMMANDS = (
    for_each("console", "Join this terminal to the text console of a machine; Ctrl-] leaves it.", "vm", _console,
             control_domain=True, pages=("CONNECT /console",)),
    for_each("vm-export", "Write a machine to a file.", "vm", _vm_export, ("filename",), _EXPORT, also=ANY_MACHINE,
             pages=("GET /export",), common=True),
    Command("template-export", "Write a template to a file.", _template_export, ("filename", "template-uuid"),
            ("compress", "metadata", "excluded-device-types"), pages=("GET /export",), common=True),
    Command("snapshot-export-to-template", "Write a snapshot to a file, to be imported as a template.",
            _snapshot_export,
            ("filename", "snapshot-uuid"), _EXPORT, pages=("GET /export",), common=True),
    Command("vm-import", "Make machines from a file, or from what is at a web address.", _import, (),
            ("filename", "url", "preserve", "sr-uuid", "sr-name-label", "force", "metadata", "dry-run", "vdi:"),
            pages=("PUT /import",), common=True),
    Command("vdi-import", "Fill a disk from a file.", _vdi_import, ("uuid", "filename"), ("format", "progress"),
            pages=("PUT /import_raw_vdi",), common=True),
    Command("vdi-export", "Write a disk to a file.", _vdi_export, ("uuid", "filename"), ("format", "base", "progress"),
            pages=("GET /export_raw_vdi",), common=True),
    Command("audit-log-get", "Write down who called what.", _audit, ("filename",), ("since",),
            pages=("GET /audit_log",)),
    Command("pool-dump-database", "Write the database to a file.", _dump, ("file-name",), (),
            pages=("GET /pool/xmldbdump",)),
    Command("pool-restore-database", "Take the database from a file.", _restore, ("file-name",), ("dry-run",),
            pages=("PUT /pool/xmldbdump",)),
    Command("patch-upload", "Send a patch to the pool.", _upload_patch, ("file-name",), (),
            pages=("PUT /pool_patch_upload",)),
    for_each("host-backup", "Write what a host needs to be restored to a file.", "host",
             _of_host("GET", "/host_backup", "file-name"), ("file-name",), pages=("GET /host_backup",)),
    for_each("host-restore", "Restore a host from a file.", "host", _of_host("PUT", "/host_restore", "file-name"),
             ("file-name",), pages=("PUT /host_restore",)),
    for_each("host-logs-download", "Write a host's logs to a file.", "host", _logs, (), ("file-name",),
             pages=("GET /host_logs_download",)),
    for_each("host-get-system-status", "Write a report of the system to a file.", "host",
             _of_host("GET", "/system-status", "filename", ("entries", "output")), ("filename",), ("entries", "output"),
             pages=("GET /system-status",)),
)  # fmt: skip
