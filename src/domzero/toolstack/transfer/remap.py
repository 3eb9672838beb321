"""What an archive's objects become on this host: found here, made anew, or left out. Pure decisions.

| object | becomes |
|---|---|
| host | the host with that uuid, else none; never made |
| SR | the repository with that uuid if it is attached here; for disks that come along, the one that the client chose |
| network | the one with that name, else with that bridge, else a new one with that name |
| disk that comes along | a new one of the same size, in the chosen repository |
| CD image | the one with that file name in a library of CD images here, else the drive is empty |
| disk of an archive without content | the one that the client named, or with that uuid, or at that place |
| machine | a new one with addresses of its own, or (`restore`) the same one: see `import_plan` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.transfer.manifest import Objects, taken, taken_one
from domzero.wire.xva.model import ArchivedObject

DISK_FIELDS: Final = (
    "name_label", "name_description", "virtual_size", "type", "sharable", "read_only", "other_config", "tags",
    "is_a_snapshot", "snapshot_time",
)  # fmt: skip
"""What a disk that comes along takes over. Driver settings and serial numbers mean nothing in another repository."""
DISK_TYPES: Final = frozenset({"system", "user", "ephemeral"})
LARGEST_DISK: Final = 1 << 50
NETWORK_FIELDS: Final = ("name_label", "name_description", "MTU", "tags")


@dataclass(frozen=True, slots=True)
class Options:
    """What the client asked for."""

    sr: Ref = NULL_REF
    """Where disks that come along are to be; null where none come."""
    restore: bool = False
    """The machines are to be the same ones: same uuid, same addresses."""
    force: bool = False
    """What is wrong or missing is to be passed over where that is possible."""
    content: bool = True
    """Whether the content of the disks comes along."""
    disks: Mapping[str, str] = field(default_factory=dict)
    """Without content: uuid of a disk in the archive → uuid of the disk here that it is."""


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk to be made, and filled from the archive's directory of that name. `fields` are those of its row."""

    id: str
    size: int
    fields: Mapping[str, Any]
    snapshot_of: str
    """The disk of the archive whose snapshot it is, or nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the archive's objects are on this host, by identifier."""

    known: Mapping[str, Ref]
    """Objects that are there already. A CD image that is not has the null reference."""
    networks: Mapping[str, Mapping[str, Any]]
    """Networks to be made: the fields of each."""
    disks: Mapping[str, NewDisk]
    """Disks to be made."""


def find_objects(database: Database, objects: Objects, options: Options) -> Found:
    """Look for everything but machines and saved memory. Disks that no drive holds are left out.

    Raises the documented errors for what must be there and is not.
    """
    known: dict[str, Ref] = {}
    networks: dict[str, Mapping[str, Any]] = {}
    disks: dict[str, NewDisk] = {}
    drives, here = _drives(database, objects), Here.of(database)
    for item in objects.values():
        match item.cls:
            case "host" | "SR":
                known[item.id] = _by_uuid(database, item)
            case "network":
                found = network_like(database, here, item)
                if found == NULL_REF:
                    networks[item.id] = taken(database.graph, item, NETWORK_FIELDS)
                else:
                    known[item.id] = found
            case "VDI" if item.id not in drives:
                continue
            case "VDI" if drives[item.id] == {"CD"} or _is_in_library(database, objects, item):
                known[item.id] = here.images.get(taken_one(database.graph, item, "location"), NULL_REF)
            case "VDI" if options.content:
                disks[item.id] = new_disk(database, item)
            case "VDI":
                known[item.id] = _disk_here(database, here, objects, item, options)
    return Found(known, networks, disks)


@dataclass(frozen=True, slots=True)
class Here:
    """What this host has, by what archives know it by."""

    bridges: Mapping[str, Ref]
    images: Mapping[str, Ref]
    """CD images by file name."""
    disks: Mapping[tuple[Ref, str], Ref]
    """Disks by repository and place in it."""

    @classmethod
    def of(cls, database: Database) -> Here:
        libraries = {ref for ref, row in database.rows("SR").items() if row.record["content_type"] == "iso"}
        disks = {(row.record["SR"], row.record["location"]): ref for ref, row in database.rows("VDI").items()}
        return cls(
            {row.record["bridge"]: ref for ref, row in database.rows("network").items() if row.record["bridge"]},
            {place: ref for (sr, place), ref in disks.items() if sr in libraries and place},
            disks,
        )


def _drives(database: Database, objects: Objects) -> Mapping[str, set[str]]:
    """By disk of the archive, the kinds of the drives that it is in."""
    drives: dict[str, set[str]] = {}
    for item in objects.values():
        if item.cls == "VBD":
            drive = taken(database.graph, item, ("VDI", "type"))
            drives.setdefault(drive["VDI"], set()).add(drive["type"])
    return drives


def _is_in_library(database: Database, objects: Objects, disk: ArchivedObject) -> bool:
    sr = objects.get(taken_one(database.graph, disk, "SR"))
    return sr is not None and sr.cls == "SR" and taken_one(database.graph, sr, "content_type") == "iso"


def _by_uuid(database: Database, item: ArchivedObject) -> Ref:
    """The object here with the same uuid, or null."""
    try:
        return database.by_uuid(item.cls, taken_one(database.graph, item, "uuid"))
    except ApiError as error:
        if error.code != "UUID_INVALID":
            raise
        return NULL_REF


def network_like(database: Database, here: Here, item: ArchivedObject) -> Ref:
    """The network here with the same name, else with the same bridge, else null."""
    wanted = taken(database.graph, item, ("name_label", "bridge"))
    named = database.by_name_label("network", wanted["name_label"]) if wanted["name_label"] else ()
    return named[0] if named else here.bridges.get(wanted["bridge"], NULL_REF)


def new_disk(database: Database, item: ArchivedObject) -> NewDisk:
    """A disk of the archive as one to be made. Raises IMPORT_ERROR for a size that no disk can have."""
    fields = taken(database.graph, item, DISK_FIELDS)
    size = fields.pop("virtual_size")
    if not 0 < size <= LARGEST_DISK:
        raise ApiError("IMPORT_ERROR", f"The disk {item.id} cannot have {size} bytes.")
    if fields["type"] not in DISK_TYPES:
        fields["type"] = "user"
    return NewDisk(item.id, size, fields, taken_one(database.graph, item, "snapshot_of"))


def _disk_here(database: Database, here: Here, objects: Objects, item: ArchivedObject, options: Options) -> Ref:
    """The disk that an archive without content means. Null where there is none and `force` was asked for.

    Raises VDI_LOCATION_MISSING [repository, place] when its repository is here and has no such disk, else
    IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND; UUID_INVALID when the client named a disk that does not exist.
    """
    wanted = taken(database.graph, item, ("uuid", "location", "SR"))
    named = options.disks.get(wanted["uuid"])
    if named is not None:
        return _usable(database, database.by_uuid("VDI", named))
    sr = objects.get(wanted["SR"])
    repository = NULL_REF if sr is None or sr.cls != "SR" else _by_uuid(database, sr)
    found = _by_uuid(database, item)
    if found == NULL_REF:
        found = here.disks.get((repository, wanted["location"]), NULL_REF)
    if found != NULL_REF:
        return _usable(database, found)
    if options.force:
        return NULL_REF
    if repository != NULL_REF:
        raise ApiError("VDI_LOCATION_MISSING", repository, wanted["location"])
    raise ApiError("IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND")


def _usable(database: Database, vdi: Ref) -> Ref:
    """The disk, if it can be in a drive: saved memory holds another guest's secrets."""
    record = database.record("VDI", vdi)
    if not record["managed"]:
        raise ApiError("VDI_NOT_MANAGED", vdi)
    if record["type"] == "suspend":
        raise ApiError("VDI_INCOMPATIBLE_TYPE", vdi, record["type"])
    return vdi


def check_family(links: Iterable[tuple[str, str]]) -> None:
    """Raises IMPORT_ERROR when following the links (object, what it comes from) from some object leads back to it."""
    origins = dict(links)
    settled: set[str] = set()
    for start in origins:
        path: set[str] = set()
        at: str | None = start
        while at is not None and at not in settled:
            if at in path:
                raise ApiError("IMPORT_ERROR", f"{at} comes from itself.")
            path.add(at)
            at = origins.get(at)
        settled |= path
