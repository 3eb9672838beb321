"""Looks at storage repositories: rows for disks that came, sizes of those that grew, `missing` for those that went.

A disk whose creation was cut short by the end of the daemon, after it was whole on the medium and before its row was
stored, gets a row here, under its location's name: it is shown and can be destroyed, so that nothing leaks. One whose
removal was cut short is shown as missing and can be destroyed again. See docs/decisions/0013.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import NoReturn

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.storage.protocol import DiskInfo
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.repositories import asking, attached, measured, refresh_size, this_host_pbd

log = logging.getLogger(__name__)

AUTO_SCAN = "auto-scan"
"""The key of an SR's other_config that has it looked at by itself, with `true`."""
AUTO_SCAN_INTERVAL = "auto-scan-interval"
"""The key of the host's other_config that says how often, in seconds."""
INTERVAL = 30.0
SHORTEST_INTERVAL = 1.0
TOOLS_DISC = "guest-tools.iso"
"""The location of the disc with the guest tools in the repository that is made for it."""
HARDWARE = "udev"
"""The type whose disks are devices: one that has been pulled out leaves no row behind unless a drive refers to it."""


async def scan(stack: Stack, sr: Ref, *, alone: bool = True) -> None:
    """Make the VDI rows and the SR's sizes what the medium says. Raises SR_BACKEND_FAILURE_*, and as `attached`.

    The caller keeps others from making disks meanwhile (the SR's gate does, for `scan`), or is not `alone`: then a disk
    without a row may be in somebody's hands, so new ones are only taken in when nobody was at work here.
    """
    driver, repository = attached(stack, sr)
    before = stack.database.generation
    disks = await asking(driver.scan(repository))
    found = stack.database.find("SR", sr)
    if found is None:
        return
    undisturbed = found.generation <= before and not found.record["current_operations"]
    changed = _reconcile(stack.database, sr, disks, before, take_in=alone or undisturbed)
    with stack.database.transaction():
        for vdi in changed:
            stack.gates["VDI"].refresh(vdi)
            for vbd in stack.database.get("VDI", vdi, "VBDs"):
                stack.gates["VBD"].refresh(vbd)
    await refresh_size(stack, sr)


async def keep_scanning(stack: Stack) -> NoReturn:
    """Look at the repositories that ask for it, again and again. One that takes long does not hold the others up."""
    async with asyncio.TaskGroup() as looking:
        while True:
            await stack.clock.sleep(interval(stack.database.get("host", stack.host, "other_config")))
            for sr in _due(stack):
                looking.create_task(_look(stack, sr))


async def scan_automatically(stack: Stack) -> None:
    """One round, to its end."""
    await asyncio.gather(*(_look(stack, sr) for sr in _due(stack)))


def interval(other_config: Mapping[str, str]) -> float:
    """Seconds between two rounds, as the host's other_config has it; what is no sensible number counts for nothing."""
    try:
        seconds = float(other_config.get(AUTO_SCAN_INTERVAL, INTERVAL))
    except ValueError:
        return INTERVAL
    return max(SHORTEST_INTERVAL, seconds) if math.isfinite(seconds) else INTERVAL


def _due(stack: Stack) -> list[Ref]:
    """The repositories to look at now; one that is still being looked at is not."""
    return [
        sr
        for sr, row in stack.database.rows("SR").items()
        if row.record["other_config"].get(AUTO_SCAN) == "true"
        and _is_plugged(stack, sr)
        and not stack.scans.is_running(sr)
    ]


def _is_plugged(stack: Stack, sr: Ref) -> bool:
    pbd = this_host_pbd(stack, sr)
    return pbd is not None and bool(stack.database.get("PBD", pbd, "currently_attached"))


async def _look(stack: Stack, sr: Ref) -> None:
    try:
        await stack.scans.share(sr, lambda: scan(stack, sr, alone=False))
    except ApiError as error:
        log.warning("storage repository %s could not be scanned: %s", sr, error)
    except Exception:  # what a driver does wrong must not end the daemon
        log.exception("scanning storage repository %s failed in a way that it should not", sr)


def _reconcile(database: Database, sr: Ref, disks: list[DiskInfo], before: int, *, take_in: bool) -> list[Ref]:
    """The rows that had to be changed or made.

    `disks` is what there was at some moment after the generation `before`; what has happened to a row since is newer.
    """
    by_location = {database.get("VDI", vdi, "location"): vdi for vdi in database.get("SR", sr, "VDIs")}
    gone = {deletion.uuid for deletion in database.changes.deleted_since(before) if deletion.class_name == "VDI"}
    changed: list[Ref] = []
    with database.transaction(observed=True) as transaction:
        for disk in disks:
            vdi = by_location.pop(disk.location, None)
            if vdi is None:
                if take_in and disk.uuid not in gone and not _is_elsewhere(database, sr, disk):
                    changed.append(_take_in(database, transaction, sr, disk))
            elif _bring_up_to_date(database, transaction, vdi, disk):
                changed.append(vdi)
        for vdi in by_location.values():
            if database.row("VDI", vdi).generation <= before and not database.get("VDI", vdi, "missing"):
                changed.extend(_miss(database, transaction, sr, vdi))
    return changed


def _bring_up_to_date(database: Database, transaction: Transaction, vdi: Ref, disk: DiskInfo) -> bool:
    record = database.record("VDI", vdi)
    fields = {**measured(record, disk), "missing": False}
    if all(record[name] == value for name, value in fields.items()):
        return False
    transaction.update("VDI", vdi, **fields)
    return True


def _take_in(database: Database, transaction: Transaction, sr: Ref, disk: DiskInfo) -> Ref:
    fields = {
        **measured({"sm_config": {}, "xenstore_data": {}}, disk),
        "uuid": disk.uuid,
        "name_label": disk.name or disk.location,
        "SR": sr,
        "location": disk.location,
        "type": "user",
        "read_only": disk.read_only or database.get("SR", sr, "content_type") == "iso",
        "managed": True,
        "is_tools_iso": disk.location == TOOLS_DISC and database.get("SR", sr, "is_tools_sr"),
    }
    return transaction.create("VDI", fields)


def _miss(database: Database, transaction: Transaction, sr: Ref, vdi: Ref) -> list[Ref]:
    if database.get("SR", sr, "type") == HARDWARE and not database.get("VDI", vdi, "VBDs"):
        transaction.destroy("VDI", vdi)
        return []
    transaction.update("VDI", vdi, missing=True)
    return [vdi]


def _is_elsewhere(database: Database, sr: Ref, disk: DiskInfo) -> bool:
    """Whether the disk's uuid is one of another repository, of which this one must be a copy."""
    row = database.tables.by_class["VDI"].uuids.get(disk.uuid)
    if row is not None:
        log.warning("disk %s of %s is left out: there is a disk of that uuid in %s", disk.uuid, sr, row.record["SR"])
    return row is not None
