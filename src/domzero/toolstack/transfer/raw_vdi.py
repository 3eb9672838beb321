"""Disks as files: `GET /export_raw_vdi` sends one, `PUT /import_raw_vdi` fills one or makes a new one.

Both answer before the work is done; that all went well is told by the request's task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Headers, Peer, RequestError, serves
from domzero.engine.steps import Steps
from domzero.host.contents.protocol import ContentError, ContentWriter
from domzero.idl.types import NULL_REF, Ref, RefTo
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.vdi_admission import drives_of
from domzero.toolstack.transfer.content_errors import content_failure
from domzero.toolstack.transfer.import_rows import INCOMPLETE
from domzero.toolstack.transfer.progress import Progress
from domzero.toolstack.transfer.raw_vdi_export import (
    Bytes,
    Disk,
    Image,
    Layout,
    difference_image,
    qcow2_image,
    raw_image,
    send,
    vhd_image,
)
from domzero.toolstack.transfer.raw_vdi_import import Filler, Stream, TooLongError
from domzero.toolstack.transfer.raw_vdi_spool import SpooledStream, spooled
from domzero.wire.disk_parts import Decoder, DiskFormatError, DiskSizeError, decode_chunks, decode_raw
from domzero.wire.vhd import decode_vhd

NEW_NAME: Final = "Imported VDI"
IMPORTING: Final = "import"
"""What a refusal calls the writing of a disk."""
SPOOLS: Final = "transfers"
"""The directory, beside the host's other state, of files that cannot be read as streams."""


@dataclass(frozen=True, slots=True)
class Format:
    """One value of the query's `format`."""

    content_type: str
    suffix: str
    layout: Layout
    decoder: Callable[[int | None, bool], Decoder] | None
    """Takes the stream's length, if known, and whether the disk is there already. None where streams cannot be read."""


FORMATS: Final[Mapping[str, Format]] = {
    "raw": Format("application/octet-stream", "raw", raw_image, lambda length, _: decode_raw(length)),
    "vhd": Format("application/vhd", "vhd", vhd_image, lambda length, onto: decode_vhd(length, onto_parent=onto)),
    "qcow2": Format("application/x-qemu-disk", "qcow2", qcow2_image, None),
}


@serves("GET", "/export_raw_vdi", role="vm-admin", label="VDI.export_raw")
async def export_raw(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The content of a disk that nobody writes; `vdi` is its reference or uuid, `format` one of `FORMATS` (raw).

    With `base`, another disk that is not larger, the answer is a VHD of what differs from that. The answer has a
    length, so that a client sees when it is cut short.
    """
    vdi, format = named_disk(stack, arguments.need("vdi")), _format(arguments)
    named_base = arguments.get("base")
    base = named_disk(stack, named_base) if named_base else None
    if base is not None and format is not FORMATS["vhd"]:
        raise RequestError(400, "Only a VHD can tell what differs from a base.")
    with context.task.cancellable(), _documented(vdi):
        async with AsyncExitStack() as opened:
            disk = await opened.enter_async_context(_opened(stack, context, vdi))
            if base is None:
                image = await format.layout(disk)
            else:
                other = await opened.enter_async_context(_opened(stack, context, base))
                if other.size > disk.size:
                    raise ApiError("VDI_TOO_LARGE", base, str(disk.size))
                image = await difference_image(disk, other)
            await _send(stack, context, peer, format, image, disk)


async def _send(
    stack: Stack, context: Context, peer: Peer, format: Format, image: Image, disk: Disk
) -> None:  # fmt: skip
    progress = Progress(context.task.set_progress, stack.clock, image.length)

    async def write(data: Bytes) -> None:
        await peer.write(data)
        progress.reach(progress.done + len(data))

    peer.begin(200, _headers(context, str(disk.uuid), format), length=image.length)
    await send(image, disk, write)


@asynccontextmanager
async def _opened(stack: Stack, context: Context, vdi: Ref) -> AsyncIterator[Disk]:
    """A disk that nobody writes meanwhile."""
    async with stack.gates["VDI"].operation(context, vdi, "copy"):
        source = await disks.disk_source(stack, vdi)
        record = stack.database.record("VDI", vdi)
        async with stack.contents.reading(source) as reader:
            size = min(record["virtual_size"], reader.size)
            yield Disk(reader, size, UUID(record["uuid"]), int(stack.clock.now().timestamp()))


@serves("PUT", "/import_raw_vdi", role="vm-admin", label="VDI.import_raw", result=RefTo("VDI"))
async def import_raw(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> Ref | None:
    """Fill the disk `vdi` with what is sent, or make a new one of its size in the repository `sr_id` or `sr_uuid`.

    `format` is one of `FORMATS` (raw); with `chunked`, raw parts come in XenServer's own framing. What a raw stream
    does not reach stays as it is, and so does what a differencing VHD leaves to its parent, whose content `vdi` must
    have. Returns the new disk.
    """
    format, framed = _format(arguments), arguments.flag("chunked")
    is_raw = format is FORMATS["raw"]
    if peer.chunked:
        peer.begin(403, length=0)
        raise ApiError("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED")
    if framed and not is_raw:
        raise RequestError(400, "Only raw content comes in chunks.")
    onto = bool(arguments.get("vdi"))
    async with _stream(stack, context, peer, format, framed=framed, onto=onto) as stream:
        if onto:
            least = (peer.length or 0) if is_raw and not framed else 0
            await _into(stack, context, peer, named_disk(stack, arguments["vdi"]), stream, least)
            return None
        if framed or (is_raw and peer.length is None):
            raise RequestError(400, "The size of a new disk follows from the Content-Length.")
        return await _into_new(stack, context, peer, _repository(stack, arguments), stream)


@asynccontextmanager
async def _stream(
    stack: Stack, context: Context, peer: Peer, format: Format, *, framed: bool, onto: bool
) -> AsyncIterator[Stream | SpooledStream]:
    """What the peer sends, `onto` a disk that there is already."""
    progress = Progress(context.task.set_progress, stack.clock, peer.length or 0)
    reached = progress.reach if peer.length else lambda _: None
    if format.decoder is None:
        async with spooled(stack.contents, peer, stack.settings.state_dir / SPOOLS, reached) as stream:
            yield stream
    else:
        yield Stream(decode_chunks() if framed else format.decoder(peer.length, onto), peer, reached)


async def _into(
    stack: Stack, context: Context, peer: Peer, vdi: Ref, stream: Stream | SpooledStream, least: int
) -> None:
    """`least` is how many bytes the disk must have, as far as that is known."""
    _assert_writable(stack, vdi)
    with context.task.cancellable(), _documented(vdi):
        async with stack.gates["VDI"].operation(context, vdi, "blocked"):
            _assert_writable(stack, vdi)
            if least > stack.database.get("VDI", vdi, "virtual_size"):
                raise TooLongError(least)
            source = await disks.disk_source(stack, vdi)
            async with stack.contents.writing(source) as writer:
                size = min(stack.database.get("VDI", vdi, "virtual_size"), writer.size)
                peer.begin(200, _answer(context))
                announced = await stream.size()
                if announced is not None and announced > size:
                    raise TooLongError(announced)
                await _fill(stream, writer, size, is_blank=False)
            await disks.update_vdi(stack, vdi)


async def _into_new(stack: Stack, context: Context, peer: Peer, sr: Ref, stream: Stream | SpooledStream) -> Ref:
    disks.require(stack, sr, "VDI_CREATE")
    with context.task.cancellable(), _documented(NULL_REF):
        peer.begin(200, _answer(context))
        size = await stream.size()
        if size is None:
            raise DiskFormatError("it does not say how large the disk is")
        async with Steps() as steps:
            async with stack.gates["SR"].operation(context, sr, "vdi_create"):
                unfinished = {INCOMPLETE: context.task.ref}
                vdi = await disks.create_vdi(stack, sr, name_label=NEW_NAME, virtual_size=size, other_config=unfinished)
            steps.on_failure("remove the disk", lambda: disks.destroy_vdi(stack, vdi))
            # Else a daemon killed later on would leave a disk of which nobody knows that it is not complete.
            await stack.database.durable()
            async with stack.gates["VDI"].operation(context, vdi, "blocked"):
                source = await disks.disk_source(stack, vdi)
                async with stack.contents.writing(source) as writer:
                    await steps.do("fill the disk", lambda: _fill(stream, writer, size, is_blank=True))
                await disks.update_vdi(stack, vdi)
                await steps.do("complete the disk", lambda: _complete(stack, vdi))
    return vdi


def _complete(stack: Stack, vdi: Ref) -> None:
    """From now on the disk stays, whatever happens to the daemon."""
    with stack.database.transaction() as transaction:
        config = stack.database.get("VDI", vdi, "other_config")
        transaction.update("VDI", vdi, other_config={name: config[name] for name in config if name != INCOMPLETE})


async def _fill(stream: Stream | SpooledStream, writer: ContentWriter, size: int, *, is_blank: bool) -> None:
    filler = Filler(writer, size, is_blank=is_blank)
    try:
        await stream.fill(filler)
    finally:
        await filler.close()


def named_disk(stack: Stack, named: str) -> Ref:
    """The disk of that reference or uuid. Raises HANDLE_INVALID, UUID_INVALID."""
    if stack.database.find("VDI", named) is not None:
        return named
    if named.startswith("OpaqueRef:"):
        raise ApiError("HANDLE_INVALID", "VDI", named)
    return stack.database.by_uuid("VDI", named)


def _repository(stack: Stack, arguments: Arguments) -> Ref:
    """The repository for a new disk. Raises `RequestError` 400, HANDLE_INVALID, UUID_INVALID."""
    if named := arguments.get("sr_id"):
        stack.database.row("SR", named)
        return named
    if uuid := arguments.get("sr_uuid"):
        return stack.database.by_uuid("SR", uuid)
    raise RequestError(400, "The query lacks vdi, or sr_id or sr_uuid for a new disk.")


def _format(arguments: Arguments) -> Format:
    """Raises `RequestError` 400."""
    name = arguments.get("format") or "raw"
    try:
        return FORMATS[name]
    except KeyError:
        raise RequestError(400, f"The format is none of {', '.join(FORMATS)}.") from None


def _assert_writable(stack: Stack, vdi: Ref) -> None:
    """Raises VDI_NOT_MANAGED, VDI_READONLY, VDI_IN_USE, OTHER_OPERATION_IN_PROGRESS."""
    record = stack.database.record("VDI", vdi)
    if not record["managed"]:
        raise ApiError("VDI_NOT_MANAGED", vdi)
    if record["read_only"] or stack.database.get("SR", record["SR"], "content_type") == "iso":
        raise ApiError("VDI_READONLY", vdi)
    drives = drives_of(stack.database, record)
    if drives.attached:
        raise ApiError("VDI_IN_USE", vdi, IMPORTING)
    if drives.busy is not None:
        raise drives.busy


@contextmanager
def _documented(vdi: Ref) -> Iterator[None]:
    """What goes wrong with bytes, in the documented form."""
    try:
        yield
    except ContentError as error:
        raise content_failure(error) from error
    except TooLongError as error:
        raise ApiError("VDI_TOO_SMALL", vdi, str(error.needed)) from error
    except DiskSizeError as error:
        raise ApiError("VDI_TOO_LARGE", vdi, str(error.limit)) from error
    except DiskFormatError as error:
        raise ApiError("IMPORT_ERROR", str(error)) from error


def _answer(context: Context) -> Headers:
    return (("task-id", context.task.ref), ("cache-control", "no-cache, no-store"))


def _headers(context: Context, uuid: str, format: Format) -> Headers:
    return (
        *_answer(context),
        ("content-type", format.content_type),
        ("content-disposition", f'attachment; filename="{uuid}.{format.suffix}"'),
    )
