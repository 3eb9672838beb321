"""What a hypervisor is told to run, as plain values.

The toolstack builds a `MachineSpec` from database rows (a pure function); a driver turns it into processes. Nothing
here knows XenAPI beyond its vocabulary of slots.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class DiskFormat(Enum):
    """How a disk's content is laid out in its file; the names are QEMU's driver names."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VPC = "vpc"


@dataclass(frozen=True, slots=True)
class Extent:
    """A contiguous part of a file or block device, in bytes: a logical volume where the kernel cannot map it."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """Content that the hypervisor reaches over the network by itself, without the host's kernel.

    `driver` is one of QEMU's block drivers (`iscsi`, `nfs`, `rbd`) and `options` are its settings under the names of
    QEMU's QMP reference (BlockdevOptionsIscsi, …), nested ones with dots (`server.host`). A `secret` goes its own way,
    never into an argument list, and is announced under the name of `secret_option`.
    """

    driver: str
    options: tuple[tuple[str, str | int | bool], ...]
    secret_option: str = ""
    secret: str = field(default="", repr=False)
    """A password; for `key-secret` (Ceph) the key, which is base64 already."""

    @property
    def encoded_secret(self) -> bytes:
        """What QEMU's secret object is given with `format=base64`, which fits every driver."""
        is_base64 = self.secret_option == "key-secret"  # noqa: S105 - the option's name
        return self.secret.encode() if is_base64 else b64encode(self.secret.encode())

    def __str__(self) -> str:
        return f"{self.driver}:{','.join(f'{name}={value}' for name, value in self.options)}"


@dataclass(frozen=True, slots=True)
class DiskSource:
    """Where a disk's content is, and in what format.

    A plain path is a file or a block device of this host. An `Extent` and a `RemoteImage` are always raw. A qcow2 file
    may name backing files: `backing` lists them, the one below first, where the storage driver has read and checked the
    headers; None where nobody has, so that the hypervisor must.
    """

    place: Path | Extent | RemoteImage
    format: DiskFormat
    backing: tuple[DiskSource, ...] | None = None

    @property
    def path(self) -> Path:
        """The local file or device. Raises `ValueError` for what is not on this host."""
        if isinstance(self.place, RemoteImage):
            raise ValueError(f"{self.place} is no local file")
        return self.place.path if isinstance(self.place, Extent) else self.place


class DiskKind(Enum):
    """What the guest sees in a slot."""

    DISK = "disk"
    CD = "cd"


class IoClass(Enum):
    """The kernel's input and output scheduling classes (ioprio_set(2)), under XenServer's names."""

    REAL_TIME = "rt"
    BEST_EFFORT = "be"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """How much of the host's disk a drive may have. 0 is no limit.

    Priorities belong to a process in Linux: a domain has the best one that any of its drives asks for.
    """

    bytes_per_second: int = 0
    operations_per_second: int = 0
    io_class: IoClass | None = None
    priority: int = 4
    """0 (most) to 7, within the class."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One block device. `slot` is the position ("0" … "15"); `source` is None for an empty CD drive."""

    slot: int
    kind: DiskKind
    source: DiskSource | None
    read_only: bool = False
    bootable: bool = False
    limits: DiskLimits | None = None


@dataclass(frozen=True, slots=True)
class LayerPull:
    """What `Hypervisor.pull_layer` does: `upper` is a layer of the disk's chain, `below` one further down, or none.

    The layers between them vanish from the chain. `backing_name` is what upper's header is to say of `below`, which is
    a qcow2 file. `speed` is in bytes a second, 0 for as fast as possible.
    """

    upper: Path
    below: Path | None
    backing_name: str | None
    speed: int = 0


@dataclass(frozen=True, slots=True)
class TapBackend:
    """A tap device that exists already, made for this machine by the network driver.

    Without `offloads` the guest has to complete checksums and cut segments itself: what takes its frames cannot.
    `refused` names what must not be left to the guest of the frames that it receives: to verify checksums (`tx`, in
    the words of ethtool about the tap), to take segments together (`tso`, `ufo`).
    """

    interface: str
    offloads: bool = True
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UserBackend:
    """User-mode networking: the guest reaches out, nothing reaches in. Needs no rights."""


@dataclass(frozen=True, slots=True)
class NicSpec:
    """One network card. `slot` is the VIF's device number, `mac` lower-case with colons."""

    slot: int
    mac: str
    mtu: int
    backend: TapBackend | UserBackend


@dataclass(frozen=True, slots=True)
class KernelBoot:
    """Boot a Linux kernel from the host's files, as paravirtual XenServer guests do."""

    kernel: Path
    ramdisk: Path | None
    arguments: str


@dataclass(frozen=True, slots=True)
class FirmwareBoot:
    """Boot by firmware. `order` is XenServer's string of c (disk), d (CD), n (network), tried in turn."""

    order: str
    uefi: bool = False
    variables: Path | None = None
    """Where UEFI keeps its variables between boots: made by the driver where absent, removed by the caller with the
    virtual machine. None: they last as long as the domain."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How a machine's virtual processors are to have the host's."""

    weight: int = 256
    """The share of a processor that others want, too: one with 512 gets twice as much as one with 256. 1 to 65535."""
    processors: frozenset[int] = frozenset()
    """Numbers of the host's processors on which they may run; none stands for all."""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """Everything a driver needs to run one domain. Sizes are bytes."""

    uuid: str
    """The virtual machine's uuid; shown to the guest as its system uuid."""
    name: str
    domid: int
    """Chosen by the toolstack, above 0, never used again while the host is up."""
    memory: int
    """What the machine is built with (static maximum)."""
    memory_target: int
    """What the balloon should leave the guest at once."""
    vcpus_max: int
    vcpus: int
    """Online at start; the rest can be plugged later."""
    boot: KernelBoot | FirmwareBoot
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    scheduling: Scheduling = Scheduling()
    keep_crashed: bool = False
    """A guest that panics stays, paused, to be looked at, instead of ending its domain."""
    platform: dict[str, str] = field(default_factory=dict)
    """XenServer's platform flags (acpi, apic, pae, viridian, timeoffset …), those a driver knows being obeyed."""
    faults: dict[str, str] = field(default_factory=dict)
    """Failures and delays asked for by a tester; only the simulator looks at them."""
