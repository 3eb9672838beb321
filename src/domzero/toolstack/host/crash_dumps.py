"""Crash dumps of the host's own kernel: found at a start, sent to whom it may help, deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.host.upload.protocol import UploadError, is_sendable
from domzero.idl.types import Ref
from domzero.toolstack.host import crash_files
from domzero.toolstack.host.crash_files import Crash
from domzero.toolstack.stack import Stack


async def find_crashes(stack: Stack) -> None:
    """Make the rows true to what is there."""
    directory = stack.settings.crash_dir
    host = stack.database.get("host", stack.host, "uuid")
    found = await in_thread(crash_files.find, directory) if directory is not None else []
    known = {row.record["uuid"]: ref for ref, row in stack.database.rows("host_crashdump").items()}
    with stack.database.transaction() as transaction:
        for crash in found:
            fields = {"timestamp": moment(datetime.fromtimestamp(crash.moment, UTC)), "size": crash.size}
            if (row := known.pop(crash.uuid(host), None)) is not None:
                transaction.update("host_crashdump", row, **fields)
            else:
                transaction.create("host_crashdump", {"uuid": crash.uuid(host), "host": stack.host, **fields})
        for ref in known.values():
            transaction.destroy("host_crashdump", ref)


async def _files_of(stack: Stack, dump: Ref) -> tuple[Path, Crash | None]:
    """The directory of all crashes, and the dump in it; None where it is gone."""
    uuid = stack.database.get("host_crashdump", dump, "uuid")
    host = stack.database.get("host", stack.host, "uuid")
    directory = stack.settings.crash_dir or Path("/nonexistent")
    found = await in_thread(crash_files.find, directory)
    return directory, next((crash for crash in found if crash.uuid(host) == uuid), None)


@implements("host_crashdump.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Delete the dump's files, then its row; files that are gone already are no error."""
    directory, crash = await _files_of(stack, self)
    if crash is not None:
        try:
            await in_thread(crash_files.remove, directory, crash)
        except OSError as error:
            raise ApiError("INTERNAL_ERROR", f"The dump cannot be deleted: {error.strerror}.") from error
    if stack.database.find("host_crashdump", self) is not None:
        with stack.database.transaction() as transaction:
            transaction.destroy("host_crashdump", self)


@implements("host_crashdump.upload")
async def upload(stack: Stack, context: Context, self: Ref, url: str, options: dict[str, str]) -> None:
    """Send the dump's files as one tar archive by HTTP PUT; the option `http_proxy` names a proxy.

    Nobody is sent anything by default: raises INVALID_VALUE for an address that is empty or not http(s).
    """
    directory, crash = await _files_of(stack, self)
    proxy = options.get("http_proxy", "")
    for field, address in (("url", url), ("http_proxy", proxy)):
        if not is_sendable(address) and (address or field == "url"):
            raise ApiError("INVALID_VALUE", field, "an address with http or https and a host is needed")
    if crash is None:
        raise ApiError("HANDLE_INVALID", "host_crashdump", self)
    try:
        with context.task.cancellable():
            await stack.upload(url, directory / crash.name, proxy=proxy, progress=context.task.set_progress)
    except UploadError as error:
        raise ApiError("INTERNAL_ERROR", f"The dump was not sent: {error}.") from error
