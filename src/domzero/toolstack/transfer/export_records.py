"""Which objects an archive of machines describes, and how: pure decisions over the database.

An object is described by its whole record, with references to others in the archive as `Ref:<n>`. References to what
is not in the archive become null, or are left out of sets and maps. What changes by the minute, and what others need
not know of this host, is blanked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from domzero.engine.database import Database
from domzero.idl.records import EMPTY_MAP, Layout
from domzero.idl.types import NEVER, NULL_REF, MapOf, Ref, RefTo, SetOf, Type
from domzero.toolstack.vm.operations import HALTED, SUSPENDED
from domzero.wire.xva.model import ArchivedObject

ORDER: Final = ("host", "VM", "VM_metrics", "VM_guest_metrics", "VBD", "VIF", "network", "VDI", "SR")
"""The classes of an archive's objects, in the order in which they are numbered."""
DEVICES: Final = ("VBD", "VIF", "VGPU", "VTPM", "VUSB")
"""The classes of devices that an export can leave out."""
BLANKED: Final[Mapping[str, Mapping[str, Any]]] = {
    "host": {
        "other_config": EMPTY_MAP, "license_params": EMPTY_MAP, "license_server": EMPTY_MAP, "logging": EMPTY_MAP,
        "external_auth_configuration": EMPTY_MAP, "power_on_config": EMPTY_MAP, "uefi_certificates": "",
        "ha_statefiles": (), "ha_network_peers": (), "current_operations": EMPTY_MAP, "allowed_operations": (),
    },
    "VM": {
        "current_operations": EMPTY_MAP, "allowed_operations": (), "domid": -1, "domarch": "",
        "resident_on": NULL_REF, "scheduled_to_be_resident_on": NULL_REF, "requires_reboot": False,
        "pending_guidances": (), "pending_guidances_recommended": (), "pending_guidances_full": (),
    },
    "VBD": {"current_operations": EMPTY_MAP, "allowed_operations": ()},
    "VIF": {"current_operations": EMPTY_MAP, "allowed_operations": ()},
    "VDI": {"current_operations": EMPTY_MAP, "allowed_operations": ()},
    "SR": {
        "current_operations": EMPTY_MAP, "allowed_operations": (), "other_config": EMPTY_MAP, "sm_config": EMPTY_MAP,
    },
    "network": {"current_operations": EMPTY_MAP, "allowed_operations": ()},
}  # fmt: skip
"""By class, the fields that an archive does not tell, and what it says instead."""
NOT_A_SNAPSHOT: Final[Mapping[str, Any]] = {"is_a_snapshot": False, "snapshot_of": NULL_REF, "snapshot_time": NEVER}
"""What a snapshot says without what it is one of: a machine's is a template then."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What of the machines goes into the archive."""

    snapshots: bool = False
    """Their snapshots too."""
    power_state: bool = False
    """Suspended machines stay suspended: their saved memory goes along."""
    excluded: frozenset[str] = frozenset()
    """The classes of devices, of `DEVICES`, that stay behind with what they stand on."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of an archive. `ids` gives each reference its identifier, `objects` are in the archive's order."""

    ids: Mapping[Ref, str]
    objects: tuple[ArchivedObject, ...]
    disks: tuple[Ref, ...]
    """The disks whose content goes along, in the order in which archives have them: by identifier as text."""
    images: frozenset[Ref]
    """Those of the disks that hold saved memory."""


def machines_of(database: Database, vms: Iterable[Ref], options: ExportOptions) -> tuple[Ref, ...]:
    """The machines with what the options add to them, each once."""
    found: list[Ref] = []
    for vm in vms:
        found.append(vm)
        if options.snapshots:
            found.extend(database.get("VM", vm, "snapshots"))
    return tuple(dict.fromkeys(found))


def select(database: Database, vms: Iterable[Ref], options: ExportOptions) -> Selection:
    """The objects that describe the machines. Raises HANDLE_INVALID for a machine that is not there."""
    machines = machines_of(database, vms, options)
    chosen = _chosen(database, machines, options)
    refs = [(cls, ref) for cls in ORDER for ref in chosen[cls]]
    ids = {ref: f"Ref:{number}" for number, (_, ref) in enumerate(refs)}
    objects = tuple(ArchivedObject(cls, ids[ref], _described(database, cls, ref, ids, options)) for cls, ref in refs)
    images = frozenset(_images(database, machines, options))
    streamed = [vdi for vdi in chosen["VDI"] if vdi in images or not _is_shared_medium(database, vdi)]
    return Selection(ids, objects, tuple(sorted(streamed, key=lambda vdi: ids[vdi])), images)


def _chosen(database: Database, machines: tuple[Ref, ...], options: ExportOptions) -> dict[str, dict[Ref, None]]:
    """Class → the references chosen, in order."""
    chosen: dict[str, dict[Ref, None]] = {cls: {} for cls in ORDER}
    for vm in machines:
        record = database.record("VM", vm)
        vbds, vifs = (() if cls in options.excluded else record[f"{cls}s"] for cls in ("VBD", "VIF"))
        wanted: list[tuple[str, Iterable[Ref]]] = [
            ("host", (record["affinity"],)),
            ("VM", (vm,)),
            ("VM_metrics", (record["metrics"],)),
            ("VM_guest_metrics", (record["guest_metrics"],)),
            ("VBD", vbds),
            ("VIF", vifs),
            ("network", [database.get("VIF", vif, "network") for vif in vifs]),
            ("VDI", [database.get("VBD", vbd, "VDI") for vbd in vbds]),
        ]
        for cls, refs in wanted:
            chosen[cls].update(dict.fromkeys(ref for ref in refs if database.find(cls, ref) is not None))
    chosen["VDI"].update(dict.fromkeys(_images(database, machines, options)))
    chosen["SR"].update(dict.fromkeys(database.get("VDI", vdi, "SR") for vdi in chosen["VDI"]))
    return chosen


def _images(database: Database, machines: Iterable[Ref], options: ExportOptions) -> Iterator[Ref]:
    """The saved memory of the machines, as far as it goes along."""
    for vm in machines if options.power_state else ():
        record = database.record("VM", vm)
        if record["power_state"] == SUSPENDED and database.find("VDI", record["suspend_VDI"]) is not None:
            yield record["suspend_VDI"]


def _is_shared_medium(database: Database, vdi: Ref) -> bool:
    """Whether the disk is one of a library of CD images, or only in CD drives: the other side has its own."""
    record = database.record("VDI", vdi)
    if database.get("SR", record["SR"], "content_type") == "iso":
        return True
    return all(database.get("VBD", vbd, "type") == "CD" for vbd in record["VBDs"])


def _described(
    database: Database, cls: str, ref: Ref, ids: Mapping[Ref, str], options: ExportOptions
) -> dict[str, Any]:
    record: dict[str, Any] = {**database.record(cls, ref), **BLANKED.get(cls, {})}
    if not options.power_state:
        record.update(_halted(cls))
    if record.get("is_a_snapshot") and record["snapshot_of"] not in ids:
        record.update(NOT_A_SNAPSHOT)
    return rewritten(database.layouts[cls], record, ids)


def _halted(cls: str) -> Mapping[str, Any]:
    """What objects of a class say when the machine counts as halted, whatever it is."""
    match cls:
        case "VM":
            return {"power_state": HALTED, "suspend_VDI": NULL_REF}
        case "VBD" | "VIF":
            return {"currently_attached": False}
    return {}


def rewritten(layout: Layout, record: Mapping[str, Any], ids: Mapping[Ref, str]) -> dict[str, Any]:
    """The record with identifiers of the archive in place of references; other fields stay as they are."""
    return {field.name: _rewritten(field.type, record[field.name], ids) for field in layout.fields}


def _rewritten(type_: Type, value: Any, ids: Mapping[Ref, str]) -> Any:
    match type_:
        case RefTo():
            return ids.get(value, NULL_REF)
        case SetOf(RefTo()):
            return tuple(ids[ref] for ref in value if ref in ids)
        case MapOf(RefTo(), _):
            return {ids[ref]: item for ref, item in value.items() if ref in ids}
        case MapOf(_, RefTo()):
            return {key: ids[ref] for key, ref in value.items() if ref in ids}
    return value
