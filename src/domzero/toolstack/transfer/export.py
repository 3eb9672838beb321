"""Machines as files: `GET /export` sends a machine with its disks, `GET /export_metadata` its description alone.

The answer begins once everything is held that goes into the archive. That it is whole is told by the archive's own end
and by the request's task; a failure on the way cuts the connection. Everything is let go before the task ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Headers, Peer, RequestError, serves
from domzero.finish import in_thread
from domzero.host.compression.protocol import CompressionError, Send
from domzero.idl.types import Ref
from domzero.toolstack.presence import writers
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.transfer.export_records import DEVICES, ExportOptions, Selection, machines_of, select
from domzero.toolstack.transfer.export_stream import DiskStreamer, StreamedDisk
from domzero.toolstack.transfer.manifest import written_version
from domzero.toolstack.transfer.progress import Progress
from domzero.wire.xml_encode import XmlEncoder
from domzero.wire.xva.manifest import encode_manifest
from domzero.wire.xva.model import Manifest
from domzero.wire.xva.writer import ArchiveWriter

TYPE: Final = "application/octet-stream"
COMPRESSIONS: Final = {"": "none", "false": "none", "true": "gzip", "gzip": "gzip", "zstd": "zstd"}


@serves("GET", "/export", role="vm-admin", label="VM.export")
async def export(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """A machine, template or snapshot, with its disks.

    `uuid` or `ref` says which; `use_compression` is `gzip` (or `true`) or `zstd`; with `export_snapshots` its snapshots
    go along; with `preserve_power_state` a suspended machine stays suspended, and its memory goes along;
    `excluded_device_types` names kinds of devices that do not (`vbd,vif`).
    """
    vm = named_machine(stack, arguments)
    compression = chosen_compression(arguments.get("use_compression", ""))
    options = ExportOptions(
        arguments.flag("export_snapshots"), arguments.flag("preserve_power_state"), excluded_devices(arguments)
    )
    with context.task.cancellable():
        async with held(stack, context, machines_of(stack.database, (vm,), options), "export"):
            selection = select(stack.database, (vm,), options)
            async with held_disks(stack, context, selection.disks):
                streamed = [await _streamed(stack, vdi, selection) for vdi in selection.disks]
                xml = await described(stack, selection)
                async with _compressed(stack, peer, compression) as send:
                    peer.begin(200, _headers(context, "export.xva"))
                    await _send_archive(stack, context, xml, streamed, send)


async def _send_archive(
    stack: Stack, context: Context, xml: bytes, streamed: list[StreamedDisk], send: Send
) -> None:  # fmt: skip
    writer = ArchiveWriter()
    progress = Progress(context.task.set_progress, stack.clock, sum(disk.size for disk in streamed))
    for piece in writer.manifest(xml):
        await send(piece)
    streamer = DiskStreamer(stack.contents, stack.clock, writer, send, progress)
    for disk in streamed:
        await streamer.send(disk)
    await send(writer.end())


async def _streamed(stack: Stack, vdi: Ref, selection: Selection) -> StreamedDisk:
    source = await disks.disk_source(stack, vdi)
    return StreamedDisk(selection.ids[vdi], source, stack.database.get("VDI", vdi, "virtual_size"))


@serves("GET", "/export_metadata", role="vm-admin", label="VM.export_metadata")
async def export_metadata(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The description of a machine, or of all of them (`all`), without any disk; of known length unless compressed.

    `use_compression` and devices as with `/export`; snapshots go along unless `export_snapshots` is false. Of all, the
    default templates are left out, and the control domain is unless `include_dom0` is true.
    """
    compression = chosen_compression(arguments.get("use_compression", ""))
    options = ExportOptions(arguments.flag("export_snapshots", default=True), excluded=excluded_devices(arguments))
    vms = _all_machines(stack, arguments) if arguments.flag("all") else (named_machine(stack, arguments),)
    async with held(stack, context, vms, "metadata_export"):
        xml = await described(stack, select(stack.database, vms, options))
    writer = ArchiveWriter()
    pieces = (*writer.manifest(xml), writer.end())
    length = sum(map(len, pieces)) if compression == "none" else None
    async with _compressed(stack, peer, compression) as send:
        peer.begin(200, _headers(context, "export.xva"), length=length)
        for piece in pieces:
            await send(piece)


def _all_machines(stack: Stack, arguments: Arguments) -> tuple[Ref, ...]:
    control_domains = arguments.flag("include_dom0")
    return tuple(
        ref
        for ref, row in stack.database.rows("VM").items()
        if not row.record["is_default_template"]
        and not row.record["is_a_snapshot"]
        and (control_domains or not row.record["is_control_domain"])
    )


def named_machine(stack: Stack, arguments: Arguments) -> Ref:
    """The machine that a query means. Raises `RequestError` 400, HANDLE_INVALID or UUID_INVALID."""
    named = arguments.need("ref", "uuid")
    if stack.database.find("VM", named) is not None:
        return named
    if arguments.get("ref"):
        raise ApiError("HANDLE_INVALID", "VM", named)
    return stack.database.by_uuid("VM", named)


def excluded_devices(arguments: Arguments) -> frozenset[str]:
    """The classes of devices that stay behind. Raises `RequestError` 400 for what is none."""
    words = arguments.get("excluded_device_types", "").upper().split(",")
    named = {word.strip() for word in words if word.strip()}
    if not named <= set(DEVICES):
        raise RequestError(400, f"excluded_device_types are of {', '.join(DEVICES).lower()}.")
    return frozenset(named)


def chosen_compression(word: str) -> str:
    """`none`, `gzip` or `zstd`. Raises `RequestError` 400."""
    try:
        return COMPRESSIONS[word.lower()]
    except KeyError:
        raise RequestError(400, "use_compression is none of true, false, gzip and zstd.") from None


def _headers(context: Context, name: str) -> Headers:
    return (
        ("content-type", TYPE),
        ("content-disposition", f'attachment; filename="{name}"'),
        ("cache-control", "no-cache, no-store"),
        ("task-id", context.task.ref),
    )


@asynccontextmanager
async def held(stack: Stack, context: Context, vms: Iterable[Ref], operation: str) -> AsyncIterator[None]:
    """Within, the operation goes on on the machines."""
    async with AsyncExitStack() as claims:
        for vm in vms:
            await claims.enter_async_context(stack.gates["VM"].operation(context, vm, operation))
        yield


@asynccontextmanager
async def held_disks(stack: Stack, context: Context, vdis: Iterable[Ref]) -> AsyncIterator[None]:
    """Within, nobody changes the disks. Those of suspended machines count as in use, but nothing writes to them."""
    async with AsyncExitStack() as claims:
        for vdi in vdis:
            operation = "blocked" if _is_at_rest(stack, vdi) else "copy"
            await claims.enter_async_context(stack.gates["VDI"].operation(context, vdi, operation))
        yield


def _is_at_rest(stack: Stack, vdi: Ref) -> bool:
    """Whether whoever has the disk for writing is suspended; no where nobody has it."""
    return {stack.database.get("VM", vm, "power_state") for vm in writers(stack.database, vdi)} == {"Suspended"}


async def described(stack: Stack, selection: Selection) -> bytes:
    """The archive's `ova.xml`."""
    version = written_version(
        stack.database.get("host", stack.host, "hostname"), moment(stack.clock.now()), stack.settings.version
    )
    encoder: Any = XmlEncoder(stack.database.graph)
    return await in_thread(encode_manifest, Manifest(version, selection.objects), encoder)


@asynccontextmanager
async def _compressed(stack: Stack, peer: Peer, compression: str) -> AsyncIterator[Send]:
    """Where the archive's pieces go."""
    try:
        async with stack.compression.compressing(compression, peer.write) as send:
            yield send
    except CompressionError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
