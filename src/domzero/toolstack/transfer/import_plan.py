"""Which rows and disks an import is to make, decided before anything is made. Pure, apart from new uuids.

Machines without `restore` are new ones: uuid, seed for addresses and addresses are their own; machines and snapshots
that shared a seed share the new one. With `restore` they keep all three, and take the place of a halted machine that
has the uuid already, if they are of a newer version or `force` was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NEVER, NULL_REF, Ref
from domzero.toolstack.network.vif import MAC_SEED
from domzero.toolstack.stack import StackSettings
from domzero.toolstack.transfer.foreign import Guest, adapt
from domzero.toolstack.transfer.import_devices import NewCard, NewDrive, new_card, new_drive
from domzero.toolstack.transfer.manifest import Objects, is_own, objects_of, taken, taken_one
from domzero.toolstack.transfer.remap import Found, NewDisk, Options, check_family, find_objects, new_disk
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.cloning import generation_id
from domzero.toolstack.vm.creation import domain_type_fields
from domzero.toolstack.vm.memory_constraints import (
    HIGHEST_MULTIPLIER,
    LEAST_MULTIPLIER,
    check_limits,
    check_vcpus,
    limits_of,
    target_within,
)
from domzero.toolstack.vm.operations import HALTED, SUSPENDED
from domzero.toolstack.vm.specification import SET_AT_BOOT, boot_record, read_boot_record
from domzero.toolstack.vm.templates import TEMPLATE_ONLY
from domzero.wire.xva.manifest import check_version
from domzero.wire.xva.model import MAX_DISKS, ArchivedObject, Manifest

MACHINE_FIELDS: Final = (
    "name_label", "name_description", "user_version", "is_a_template", "memory_target", "memory_static_max",
    "memory_dynamic_max", "memory_dynamic_min", "memory_static_min", "VCPUs_params", "VCPUs_max", "VCPUs_at_startup",
    "actions_after_softreboot", "actions_after_shutdown", "actions_after_reboot", "actions_after_crash",
    "PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args", "HVM_boot_policy",
    "HVM_boot_params", "HVM_shadow_multiplier", "platform", "PCI_bus", "other_config", "recommendations",
    "xenstore_data", "tags", "bios_strings", "start_delay", "shutdown_delay", "order", "version", "generation_id",
    "hardware_platform_version", "has_vendor_device", "reference_label", "domain_type", "NVRAM", "is_a_snapshot",
    "snapshot_time", "snapshot_info", "transportable_snapshot_id", "last_booted_record",
    "last_boot_CPU_flags", "blocked_operations",
)  # fmt: skip
"""What a machine takes over; all else begins as with a new one."""
NOT_A_SNAPSHOT: Final[Mapping[str, Any]] = {
    "is_a_snapshot": False,
    "snapshot_time": NEVER,
    "snapshot_info": EMPTY_MAP,
    "snapshot_metadata": "",
}
"""What a snapshot of a machine that is not in the archive becomes: the template that it is besides."""
LEFT_OUT: Final = ("VGPUs", "VTPMs", "VUSBs", "attached_PCIs")
"""Devices that machines cannot have here."""
MOST_NETWORKS: Final = 1000
"""New networks that one archive may bring."""


@dataclass(frozen=True, slots=True)
class NewMachine:
    """A machine, template or snapshot to be made. `fields` are those of its row; other machines of the archive stand
    there as identifiers, nothing where there is none."""

    id: str
    fields: Mapping[str, Any]
    snapshot_of: str
    parent: str
    image: str
    """The disk of the archive that holds its saved memory."""
    uuid: str = ""
    """The uuid that it is to have in the end; nothing for any."""
    replaces: Ref = NULL_REF
    """The machine here whose place it takes."""
    notes: tuple[str, ...] = ()
    """What is to be said of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an import makes, in terms of the archive's identifiers."""

    found: Found
    machines: tuple[NewMachine, ...]
    drives: tuple[NewDrive, ...]
    cards: tuple[NewCard, ...]
    images: Mapping[str, NewDisk]
    """Saved memory that comes along; not among `found.disks`."""
    own: bool

    @property
    def expected(self) -> int:
        """Bytes of all disks that come along."""
        return sum(disk.size for disk in (*self.found.disks.values(), *self.images.values()))


def plan_import(
    database: Database, manifest: Manifest, options: Options, settings: StackSettings, new_uuid: Callable[[], str]
) -> Plan:
    """Decide. Raises the documented errors: IMPORT_*, VDI_*, DUPLICATE_MAC_SEED, VM_TO_IMPORT_IS_NOT_NEWER_VERSION,
    VM_BAD_POWER_STATE, MEMORY_CONSTRAINT_VIOLATION*, INVALID_VALUE, INVALID_DEVICE, and `XvaError`."""
    check_version(manifest.version)
    objects, own = objects_of(database.graph, manifest), is_own(manifest)
    found = find_objects(database, objects, options)
    planner = _Planner(database, objects, options, settings, own, new_uuid)
    drives = tuple(planner.drives(found))
    hard_disks: dict[str, list[str]] = {}
    for drive in drives:
        if drive.fields["type"] == "Disk":
            hard_disks.setdefault(drive.machine, []).append(drive.fields["userdevice"])
    machines = tuple(
        planner.machine(item, hard_disks.get(item.id, [])) for item in objects.values() if item.cls == "VM"
    )
    check_family([(machine.id, machine.snapshot_of) for machine in machines])
    check_family([(machine.id, machine.parent) for machine in machines])
    check_family([(disk.id, disk.snapshot_of) for disk in found.disks.values()])
    in_drives = {drive.disk for drive in drives}
    disks = {id: disk for id, disk in found.disks.items() if id in in_drives}
    images = {it.image: new_disk(database, objects[it.image]) for it in machines if it.image}
    if not in_drives.isdisjoint(images):
        raise ApiError("IMPORT_ERROR", "The archive has saved memory in a drive.")
    if options.content and len(disks) + len(images) > MAX_DISKS:
        raise ApiError("IMPORT_ERROR", f"The archive describes more than {MAX_DISKS} disks.")
    cards = tuple(planner.cards({machine.id: machine for machine in machines}))
    networks = _joined(found.networks, cards)
    return Plan(replace(found, disks=disks, networks=networks), machines, drives, cards, images, own)


def _joined(networks: Mapping[str, Mapping[str, Any]], cards: Iterable[NewCard]) -> Mapping[str, Mapping[str, Any]]:
    """Those of the new networks that a card is to be in. Raises IMPORT_ERROR when they are too many."""
    wanted = {card.network for card in cards}
    joined = {id: fields for id, fields in networks.items() if id in wanted}
    if len(joined) > MOST_NETWORKS:
        raise ApiError("IMPORT_ERROR", f"The archive brings more than {MOST_NETWORKS} networks that are not here.")
    return joined


class _Planner:
    """What the decisions about one archive share."""

    def __init__(
        self, database: Database, objects: Objects, options: Options, settings: StackSettings, own: bool,
        new_uuid: Callable[[], str],
    ) -> None:  # fmt: skip
        self._database = database
        self._objects = objects
        self._options = options
        self._settings = settings
        self._own = own
        self._new_uuid = new_uuid
        self._seeds: dict[str, str] = {}
        self._uuids: set[str] = set()
        self._owners: Mapping[str, set[Ref]] | None = None

    def drives(self, found: Found) -> Iterator[NewDrive]:
        for item in self._objects.values():
            if item.cls == "VBD":
                drive = new_drive(self._database.graph, self._objects, item, found, force=self._options.force)
                if drive is not None:
                    yield drive

    def cards(self, machines: Mapping[str, NewMachine]) -> Iterator[NewCard]:
        for item in self._objects.values():
            if item.cls == "VIF":
                card = new_card(self._database.graph, self._objects, item, force=self._options.force)
                if card is not None:
                    keeps = self._options.restore or machines[card.machine].image != ""
                    yield card if keeps else replace(card, fields={**card.fields, "MAC": ""})

    def machine(self, item: ArchivedObject, hard_disks: list[str]) -> NewMachine:
        graph = self._database.graph
        links = taken(graph, item, ("uuid", "snapshot_of", "parent", "suspend_VDI", "power_state"))
        suspended = links["power_state"] == SUSPENDED
        image = self._image(links["suspend_VDI"]) if suspended else ""
        uuid, replaces = self._identity(item, links["uuid"])
        fields = self._fields(item, image=image, replaces=replaces)
        guest = Guest(
            fields, self._settings, self._own, hard_disks, self._left_out(item), suspended, self._system(item)
        )
        adapted = adapt(guest)
        origin = self._machine(links["snapshot_of"])
        parent, completed = self._machine(links["parent"]), {**adapted.fields, **self._snapshot(origin)}
        return NewMachine(item.id, completed, origin, parent, image, uuid, replaces, adapted.notes)

    def _fields(self, item: ArchivedObject, *, image: str, replaces: Ref) -> dict[str, Any]:
        fields = taken(self._database.graph, item, MACHINE_FIELDS)
        limits = check_limits(limits_of(fields))
        check_vcpus(fields["VCPUs_at_startup"], fields["VCPUs_max"])
        fields |= {
            **domain_type_fields(fields["domain_type"], fields["HVM_boot_policy"]),
            "memory_target": target_within(limits, fields["memory_target"]),
            "HVM_shadow_multiplier": min(max(LEAST_MULTIPLIER, fields["HVM_shadow_multiplier"]), HIGHEST_MULTIPLIER),
            "other_config": self._other_config(fields["other_config"], fields["is_a_snapshot"], replaces),
            "power_state": SUSPENDED if image else HALTED,
        }
        fields["last_booted_record"] = self._as_booted(item, fields) if image else ""
        if not image:
            fields["last_boot_CPU_flags"] = EMPTY_MAP
        if not self._options.restore:
            fields["blocked_operations"] = EMPTY_MAP
            fields["generation_id"] = generation_id(self._new_uuid()) if fields["generation_id"] else ""
        fields["is_default_template"] = fields["other_config"].get("default_template") == "true"
        return fields

    def _as_booted(self, item: ArchivedObject, fields: Mapping[str, Any]) -> str:
        """What is known of the boot of a machine that goes on from its memory, as far as it is of the right types."""
        text = fields["last_booted_record"]
        booted = ArchivedObject("VM", item.id, read_boot_record(text, dict.fromkeys(SET_AT_BOOT)))
        names = [name for name in SET_AT_BOOT if booted.snapshot[name] is not None]
        known = taken(self._database.graph, booted, names)
        adapted = adapt(Guest({**fields, **known}, self._settings)).fields
        return boot_record({name: adapted[name] for name in names})

    def _snapshot(self, origin: str) -> Mapping[str, Any]:
        """What makes a snapshot one: of its machine's own record only the name is needed."""
        if not origin:
            return NOT_A_SNAPSHOT
        name = taken_one(self._database.graph, self._objects[origin], "name_label")
        return {"snapshot_metadata": boot_record({"name_label": name})}

    def _other_config(self, config: Mapping[str, str], is_a_snapshot: bool, replaces: Ref) -> dict[str, str]:
        if not self._options.restore:
            kept = {key: value for key, value in config.items() if key not in TEMPLATE_ONLY}
            seed = config.get(MAC_SEED) or self._new_uuid()
            return {**kept, MAC_SEED: self._seeds.setdefault(seed, self._new_uuid())}
        seed = config.get(MAC_SEED) or self._new_uuid()
        if not is_a_snapshot and self._is_taken(seed, replaces):
            raise ApiError("DUPLICATE_MAC_SEED", seed)
        return {**config, MAC_SEED: seed}

    def _is_taken(self, seed: str, replaces: Ref) -> bool:
        if self._owners is None:
            owners: dict[str, set[Ref]] = {}
            for ref, row in self._database.rows("VM").items():
                if not row.record["is_a_snapshot"] and (known := row.record["other_config"].get(MAC_SEED)):
                    owners.setdefault(known, set()).add(ref)
            self._owners = owners
        return not self._owners.get(seed, set()) <= {replaces}

    def _identity(self, item: ArchivedObject, uuid: str) -> tuple[str, Ref]:
        """The uuid that the machine is to have, and whose place it takes."""
        if not self._options.restore or not uuid:
            return "", NULL_REF
        if uuid in self._uuids:
            raise ApiError("IMPORT_ERROR", f"Two machines of the archive have the uuid {uuid}.")
        self._uuids.add(uuid)
        try:
            existing = self._database.by_uuid("VM", uuid)
        except ApiError:
            return uuid, NULL_REF
        record = self._database.record("VM", existing)
        if record["power_state"] != HALTED:
            raise bad_power_state(existing, (HALTED,), record["power_state"])
        version = taken_one(self._database.graph, item, "version")
        if version <= record["version"] and not self._options.force:
            raise ApiError("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", existing, str(record["version"]), str(version))
        return uuid, existing

    def _image(self, id: str) -> str:
        """The saved memory, where it comes along and can be gone on from."""
        if not self._own or not self._options.content:
            return ""
        item = self._objects.get(id)
        if item is None or item.cls != "VDI":
            if self._options.force:
                return ""
            raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", id)
        return id

    def _machine(self, id: str) -> str:
        """A machine of the archive; nothing for one that is not in it."""
        item = self._objects.get(id)
        return id if item is not None and item.cls == "VM" else ""

    def _left_out(self, item: ArchivedObject) -> list[str]:
        graph = self._database.graph
        return [name.removesuffix("s") for name in LEFT_OUT if taken_one(graph, item, name)]

    def _system(self, item: ArchivedObject) -> str:
        """What the guest's agent said that the operating system is."""
        graph = self._database.graph
        metrics = self._objects.get(taken_one(graph, item, "guest_metrics"))
        if metrics is None or metrics.cls != "VM_guest_metrics":
            return ""
        return str(taken_one(graph, metrics, "os_version").get("distro", "")).lower()
