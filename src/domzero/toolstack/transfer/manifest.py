"""Objects of archives of machines, read and written as the datamodel has them.

Objects of an archive refer to each other by identifiers of the archive's own (`Ref:12`). Everything read is a
stranger's word: fields of an object are looked at one by one, when somebody wants them, and checked against the field's
type then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

from domzero.engine.coercion import coercer
from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.idl.records import default_value
from domzero.idl.types import EnumOf, Type, parts
from domzero.wire.xva.manifest import EXPORT_VSN
from domzero.wire.xva.model import ArchivedObject, ArchiveVersion, Manifest

WRITTEN_XAPI: Final = (1, 9)
"""The toolstack's version that archives written here claim: one that every XenServer which reads the format knows."""
BRAND: Final = "domzero"
MOST_OBJECTS: Final = 20_000
BELONGING: Final = ("VBD", "VIF")
"""The classes of a machine's devices that are looked at."""

Objects = Mapping[str, ArchivedObject]
"""An archive's objects by identifier, in its order."""


def written_version(hostname: str, date: str, version: str) -> ArchiveVersion:
    """The version of an archive that is written now."""
    major, minor = WRITTEN_XAPI
    return ArchiveVersion(hostname, date, version, BRAND, "0", major, minor, EXPORT_VSN)


def is_own(manifest: Manifest) -> bool:
    """Whether domzero wrote the archive: only then can its saved memory be gone on from."""
    return manifest.version.product_brand == BRAND


def objects_of(graph: Graph, manifest: Manifest) -> Objects:
    """The objects by identifier, without control domains and their devices: every host has its own.

    Raises IMPORT_ERROR when there are too many.
    """
    if len(manifest.objects) > MOST_OBJECTS:
        raise ApiError("IMPORT_ERROR", f"The archive describes more than {MOST_OBJECTS} objects.")
    machines = (item for item in manifest.objects if item.cls == "VM")
    hosts = {item.id for item in machines if taken_one(graph, item, "is_control_domain")}
    return {
        item.id: item
        for item in manifest.objects
        if item.id not in hosts and not (item.cls in BELONGING and hosts and taken_one(graph, item, "VM") in hosts)
    }


def taken(graph: Graph, item: ArchivedObject, names: Iterable[str]) -> dict[str, Any]:
    """The named fields of an object as values of their types; what it does not say is as the datamodel has it.

    A value with a word that an enum does not have counts as not said: newer products have further ones. Raises
    IMPORT_ERROR for a value of the wrong type.
    """
    return {name: taken_one(graph, item, name) for name in names}


def taken_one(graph: Graph, item: ArchivedObject, name: str) -> Any:
    """As `taken`, of one field."""
    field = graph.fields[item.cls][name]
    default = default_value(field)
    if name not in item.snapshot:
        return default
    try:
        return _coercer(graph, field.type, name)(item.snapshot[name])
    except ApiError as error:
        if error.code == "INVALID_VALUE" and any(isinstance(part, EnumOf) for part in parts(field.type)):
            return default
        raise ApiError("IMPORT_ERROR", f"{item.cls} {item.id}: {name} is no {field.type}") from error


@cache
def _coercer(graph: Graph, type_: Type, name: str) -> Callable[[Any], Any]:
    return coercer(graph, type_, name)
