"""A simulated disk: what is in its slot, what its guest moved, and its form in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from domzero.host.hypervisor.protocol import DiskCounters, HypervisorError
from domzero.host.hypervisor.sim.faults import Faults
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskLimits,
    DiskSource,
    DiskSpec,
    Extent,
    IoClass,
    LayerPull,
    RemoteImage,
)

DEFAULT_READ_RATE = 4096.0
DEFAULT_WRITE_RATE = 1024.0


class Owner(Protocol):
    """What a disk needs to know of its domain."""

    disks: dict[int, PluggedDisk]
    faults: Faults
    age: float


@dataclass(slots=True)
class PluggedDisk:
    """A disk, and what was moved until `since`, an age of its guest."""

    spec: DiskSpec
    since: float = 0.0
    read: float = 0.0
    written: float = 0.0
    size: int = 0
    """Bytes, as last resized; 0 before."""

    def counters(self, age: float, faults: Faults) -> DiskCounters:
        """The bytes moved until a guest's age."""
        read, written = self._moved(age, faults)
        return DiskCounters(int(read), int(written))

    def count(self, owner: Owner) -> None:
        """Fix what was moved so far, before something changes the rates."""
        self.read, self.written = self._moved(owner.age, owner.faults)
        self.since = owner.age

    def _moved(self, age: float, faults: Faults) -> tuple[float, float]:
        most = self.spec.limits.bytes_per_second if self.spec.limits else 0
        read = faults.number("read-rate", DEFAULT_READ_RATE) if self.spec.source else 0.0
        written = 0.0 if self.spec.read_only else faults.number("write-rate", DEFAULT_WRITE_RATE)
        if most:
            read, written = min(read, most), min(written, most)
        passed = age - self.since
        return self.read + passed * read, self.written + passed * written

    def pull(self, pull: LayerPull) -> None:
        """Drop the layers that a pull makes superfluous, where they are known by these names (they may be renamed).

        Raises `HypervisorError` for an empty drive, and for layers in the wrong order.
        """
        source = self.spec.source
        if source is None:
            raise HypervisorError(f"the drive in slot {self.spec.slot} is empty")
        places = [source.place, *(layer.place for layer in source.backing or ())]
        if pull.upper not in places or (pull.below is not None and pull.below not in places):
            return
        first = places.index(pull.upper)
        last = len(places) if pull.below is None else places.index(pull.below)
        if first >= last:
            raise HypervisorError(f"{pull.upper} is not above {pull.below}")
        if source.backing is not None:
            kept = source.backing[:first] + source.backing[last - 1 :]
            self.spec = replace(self.spec, source=replace(source, backing=kept))

    def to_record(self) -> dict[str, Any]:
        """The disk as JSON."""
        limits = self.spec.limits
        return {
            "slot": self.spec.slot,
            "kind": self.spec.kind.value,
            "source": _source_record(self.spec.source) if self.spec.source else None,
            "read_only": self.spec.read_only,
            "bootable": self.spec.bootable,
            "limits": _limits_record(limits) if limits else None,
            "since": self.since,
            "read": self.read,
            "written": self.written,
            "size": self.size,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PluggedDisk:
        """The disk of `to_record`. Raises KeyError, TypeError or ValueError."""
        spec = DiskSpec(
            slot=int(record["slot"]),
            kind=DiskKind(record["kind"]),
            source=_source_of(record["source"]) if record["source"] else None,
            read_only=bool(record["read_only"]),
            bootable=bool(record["bootable"]),
            limits=_limits_of(record["limits"]) if record["limits"] else None,
        )
        moved = (float(record["since"]), float(record["read"]), float(record["written"]))
        return cls(spec, *moved, int(record["size"]))


def plugged(owner: Owner, slot: int) -> PluggedDisk:
    """The disk in a slot. Raises `HypervisorError` where there is none."""
    disk = owner.disks.get(slot)
    if disk is None:
        raise HypervisorError(f"slot {slot} is empty")
    return disk


def writable(owner: Owner, slot: int) -> PluggedDisk:
    """The disk in a slot, which the guest may write. Raises `HypervisorError`."""
    disk = plugged(owner, slot)
    if disk.spec.read_only:
        raise HypervisorError(f"the disk in slot {slot} is read-only")
    return disk


def check_limits(limits: DiskLimits | None) -> None:
    """Refuse what every hypervisor refuses. Raises `HypervisorError`."""
    if limits is not None and min(limits.bytes_per_second, limits.operations_per_second) < 0:
        raise HypervisorError("a disk cannot be limited to less than nothing")
    if limits is not None and not 0 <= limits.priority <= 7:
        raise HypervisorError(f"{limits.priority} is no disk priority: 0 (first) to 7 (last) is possible")


def _source_record(source: DiskSource) -> dict[str, Any]:
    """Passwords are left out: nothing here is ever opened."""
    place = source.place
    if isinstance(place, RemoteImage):
        where: dict[str, Any] = {"driver": place.driver, "options": [list(option) for option in place.options]}
    elif isinstance(place, Extent):
        where = {"path": str(place.path), "offset": place.offset, "length": place.length}
    else:
        where = {"path": str(place)}
    backing = None if source.backing is None else [_source_record(layer) for layer in source.backing]
    return {**where, "format": source.format.value, "backing": backing}


def _source_of(record: Mapping[str, Any]) -> DiskSource:
    place: Path | Extent | RemoteImage
    if "driver" in record:
        place = RemoteImage(str(record["driver"]), tuple((str(name), value) for name, value in record["options"]))
    elif "offset" in record:
        place = Extent(Path(record["path"]), int(record["offset"]), int(record["length"]))
    else:
        place = Path(record["path"])
    backing = None if record["backing"] is None else tuple(_source_of(layer) for layer in record["backing"])
    return DiskSource(place, DiskFormat(record["format"]), backing)


def _limits_record(limits: DiskLimits) -> list[Any]:
    io_class = None if limits.io_class is None else limits.io_class.value
    return [limits.bytes_per_second, limits.operations_per_second, io_class, limits.priority]


def _limits_of(record: list[Any]) -> DiskLimits:
    most, operations, io_class, priority = record
    return DiskLimits(int(most), int(operations), None if io_class is None else IoClass(io_class), int(priority))
