"""The messages on data sources: what can be measured of an object, what it is now, what is recorded."""

from __future__ import annotations

from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.owners import owner_of
from domzero.toolstack.rrd.sources import Measured
from domzero.toolstack.stack import Stack

OPERATION = "data_source_op"


def _archive(stack: Stack, cls: str, ref: Ref) -> Archive | None:
    """What is measured of the object now. Raises HANDLE_INVALID, and for machines VM_BAD_POWER_STATE."""
    owner = owner_of(stack.database, cls, ref)
    if cls == "VM":
        stack.gates["VM"].assert_allowed(ref, OPERATION)
    return stack.archives.get(owner)


def _known(stack: Stack, cls: str, ref: Ref, name: str) -> Archive:
    """The archive, which has a source of that name. Raises INVALID_VALUE when there is none."""
    archive = _archive(stack, cls, ref)
    if archive is None or all(it.source.name != name for it in archive.measured()):
        raise ApiError("INVALID_VALUE", "data_source", name)
    return archive


def _described(found: Measured) -> dict[str, Any]:
    source = found.source
    return {
        "name_label": source.name,
        "name_description": source.description,
        "enabled": found.recorded,
        "standard": source.standard,
        "units": source.units,
        "min": source.minimum,
        "max": source.maximum,
        "value": found.value,
    }


def _list(stack: Stack, cls: str, ref: Ref) -> tuple[dict[str, Any], ...]:
    archive = _archive(stack, cls, ref)
    return () if archive is None else tuple(_described(found) for found in archive.measured())


async def _record(stack: Stack, cls: str, ref: Ref, name: str) -> None:
    archive = _known(stack, cls, ref, name)
    try:
        archive.record(name)
    except KeyError:
        raise ApiError("INTERNAL_ERROR", "Too many data sources are recorded already.") from None
    await _keep(stack, cls, ref)


async def _forget(stack: Stack, cls: str, ref: Ref, name: str) -> None:
    _known(stack, cls, ref, name).forget(name)
    await _keep(stack, cls, ref)


async def _keep(stack: Stack, cls: str, ref: Ref) -> None:
    """What was decided is on disk before it is answered. Raises INTERNAL_ERROR when it cannot be."""
    if not await stack.archives.save(owner_of(stack.database, cls, ref)):
        raise ApiError("INTERNAL_ERROR", "The decision holds until the next start: it cannot be written down.")


@implements("VM.get_data_sources")
def vm_get_data_sources(stack: Stack, context: Context, self: Ref) -> tuple[dict[str, Any], ...]:
    """What is measured of a running machine; nothing before it was first looked at. Raises VM_BAD_POWER_STATE."""
    return _list(stack, "VM", self)


@implements("VM.query_data_source")
def vm_query_data_source(stack: Stack, context: Context, self: Ref, data_source: str) -> float:
    """The latest value, NaN while it is unknown. Raises VM_BAD_POWER_STATE, INVALID_VALUE."""
    return _known(stack, "VM", self, data_source).value(data_source)


@implements("VM.record_data_source")
async def vm_record_data_source(stack: Stack, context: Context, self: Ref, data_source: str) -> None:
    """Keep the history from now on. Raises VM_BAD_POWER_STATE, INVALID_VALUE."""
    await _record(stack, "VM", self, data_source)


@implements("VM.forget_data_source_archives")
async def vm_forget_data_source_archives(stack: Stack, context: Context, self: Ref, data_source: str) -> None:
    """Throw the history away, and keep none from now on. Raises VM_BAD_POWER_STATE, INVALID_VALUE."""
    await _forget(stack, "VM", self, data_source)


@implements("host.get_data_sources")
def host_get_data_sources(stack: Stack, context: Context, host: Ref) -> tuple[dict[str, Any], ...]:
    """What is measured of the host."""
    return _list(stack, "host", host)


@implements("host.query_data_source")
def host_query_data_source(stack: Stack, context: Context, host: Ref, data_source: str) -> float:
    """The latest value, NaN while it is unknown. Raises INVALID_VALUE."""
    return _known(stack, "host", host, data_source).value(data_source)


@implements("host.record_data_source")
async def host_record_data_source(stack: Stack, context: Context, host: Ref, data_source: str) -> None:
    """Keep the history from now on. Raises INVALID_VALUE."""
    await _record(stack, "host", host, data_source)


@implements("host.forget_data_source_archives")
async def host_forget_data_source_archives(stack: Stack, context: Context, host: Ref, data_source: str) -> None:
    """Throw the history away, and keep none from now on. Raises INVALID_VALUE."""
    await _forget(stack, "host", host, data_source)


@implements("host.backup_rrds")
async def backup_rrds(stack: Stack, context: Context, host: Ref, delay: float) -> None:
    """Write all history down after so many seconds. Raises INVALID_VALUE for a delay that is no such number."""
    stack.database.row("host", host)
    if not 0 <= delay <= 86_400:
        raise ApiError("INVALID_VALUE", "delay", str(delay))
    with context.task.cancellable():
        await stack.clock.sleep(delay)
    await stack.archives.save_all()


@implements("SR.get_data_sources")
def sr_get_data_sources(stack: Stack, context: Context, sr: Ref) -> tuple[dict[str, Any], ...]:
    """What is measured of a repository: nothing as long as no running machine uses a disk in it."""
    return _list(stack, "SR", sr)


@implements("SR.query_data_source")
def sr_query_data_source(stack: Stack, context: Context, sr: Ref, data_source: str) -> float:
    """The latest value, NaN while it is unknown. Raises INVALID_VALUE."""
    return _known(stack, "SR", sr, data_source).value(data_source)


@implements("SR.record_data_source")
async def sr_record_data_source(stack: Stack, context: Context, sr: Ref, data_source: str) -> None:
    """Keep the history from now on. Raises INVALID_VALUE."""
    await _record(stack, "SR", sr, data_source)


@implements("SR.forget_data_source_archives")
async def sr_forget_data_source_archives(stack: Stack, context: Context, sr: Ref, data_source: str) -> None:
    """Throw the history away, and keep none from now on. Raises INVALID_VALUE."""
    await _forget(stack, "SR", sr, data_source)
