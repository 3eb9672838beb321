"""Whose history there can be: machines, hosts and repositories, as rows of the database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domzero.engine.changes import Change
from domzero.engine.clock import Clock
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.rrd.archives import Archives
from domzero.toolstack.rrd.columns import AVERAGES, EXTREMES
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.store import ArchiveStore

CLASSES = {"vm": "VM", "host": "host", "sr": "SR"}
"""Kind of owner → class."""
KINDS = {cls: kind for kind, cls in CLASSES.items()}
DIRECTORY = "rrd"
"""Below the state directory."""
KEEP_EXTREMES = "create_min_max_in_new_VM_RRDs"
"""The pool's `other_config` key by which new machines' archives hold the smallest and greatest values too."""


def owner_of(database: Database, cls: str, ref: Ref) -> Owner:
    """The owner that an object is. Raises HANDLE_INVALID."""
    return Owner(KINDS[cls], database.get(cls, ref, "uuid"))


def functions_for(database: Database, pool: Ref, kind: str) -> Sequence[str]:
    """What a new archive is to hold. Raises HANDLE_INVALID."""
    if kind != "vm" or database.get("pool", pool, "other_config").get(KEEP_EXTREMES) == "true":
        return EXTREMES
    return AVERAGES


def make_archives(database: Database, clock: Clock, state_dir: Path) -> Archives:
    """The archives of the database's objects, which go when the objects do."""

    def exists(owner: Owner) -> bool:
        try:
            database.by_uuid(CLASSES[owner.kind], owner.uuid)
        except ApiError:
            return False
        return True

    archives = Archives(ArchiveStore(state_dir / DIRECTORY), exists, clock)

    def forget_what_went(changes: Sequence[Change]) -> None:
        for change in changes:
            if change.after is None and change.before is not None and change.row.class_name in KINDS:
                archives.forget(Owner(KINDS[change.row.class_name], change.before["uuid"]))
                archives.readings.pop(change.row.ref, None)

    database.subscribe(forget_what_went)
    return archives
