"""The contract between the toolstack and a hypervisor driver.

A *domain* is one run of a virtual machine: each boot is a new domain with a new domid. A driver keeps no record beyond
what it needs to find its domains again after a restart of the daemon; the database belongs to the toolstack.

Rules for every driver:

* Methods are coroutines that return when the thing has happened (not when it was asked for).
* A failure raises `HypervisorError`, or `DomainNotFoundError` when the domain is not (or no longer) there; the
  driver has then left things as they were before the call, or ended the domain and said so with an event.
* Events are delivered by calling the listener from the event loop, in the order in which they happened, each once.
* A domain that ends by itself stays listed by nobody: after its `DomainStopped` the domid is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from domzero.host.hypervisor.spec import DiskLimits, DiskSource, DiskSpec, LayerPull, MachineSpec, NicSpec, Scheduling


class HypervisorError(Exception):
    """The hypervisor could not do it; the text says why, fit for a log and for an operator."""


class DomainNotFoundError(HypervisorError):
    """There is no such domain (any more)."""


class GuestNotRespondingError(HypervisorError):
    """The guest was asked (to unplug, to shut down …) and did not answer in time; nothing was forced."""


class RunState(Enum):
    """What a domain is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"
    """The guest panicked and stands still as it was then (`MachineSpec.keep_crashed`)."""


class StopReason(Enum):
    """Why a domain ended."""

    SHUTDOWN = "shutdown"
    """The guest powered itself off."""
    REBOOT = "reboot"
    """The guest asked for a reset. The driver has ended the domain: a new boot is a new domain."""
    CRASH = "crash"
    """The guest panicked and said so, or the process died or was killed from outside."""
    DESTROYED = "destroyed"
    """`destroy` was called."""


@dataclass(frozen=True, slots=True)
class DomainStopped:
    """The domain is gone: its process has been reaped and its files are closed."""

    domid: int
    reason: StopReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DomainStateChanged:
    """The domain was paused or resumed, whoever asked for it, or its guest crashed and is kept."""

    domid: int
    state: RunState


@dataclass(frozen=True, slots=True)
class GuestPortClosed:
    """The program in the guest that used a channel has let go of it.

    Told within a second or so; when another program takes the channel at once, not at all, or when it has it already:
    `Hypervisor.guest_port_in_use` tells.
    """

    domid: int
    socket: Path
    """One of `DomainStatus.guest_sockets`."""


DomainEvent = DomainStopped | DomainStateChanged | GuestPortClosed
DomainListener = Callable[[DomainEvent], None]


@dataclass(frozen=True, slots=True)
class GuestProcessor:
    """What the guest's CPUID says of its processors."""

    vendor: str
    """Such as `"GenuineIntel"`."""
    features: tuple[int, ...]
    """Words of 32 bits in the order of Xen's feature set (arch-x86/cpufeatureset.h)."""


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """A living domain, as found."""

    domid: int
    uuid: str
    state: RunState
    vnc_socket: Path | None
    """A Unix socket that speaks RFB."""
    serial_socket: Path | None
    """A Unix socket with the first serial line; what the guest wrote so far is in `serial_log`."""
    serial_log: Path | None
    """The latest output of the first serial line (bounded; the driver says how much it keeps)."""
    guest_sockets: tuple[Path, ...] = ()
    """Unix sockets whose other ends are channels for programs in the guest, one at a time in each: first the agent."""
    processor: GuestProcessor | None = None
    """Told by `Hypervisor.start` alone, and None where it is not known."""


@dataclass(frozen=True, slots=True)
class RequestCounters:
    """Requests finished since the domain started, and the time they took, each from its beginning to its end."""

    reads: int
    writes: int
    read_seconds: float
    write_seconds: float


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """Bytes moved since the domain started."""

    read_bytes: int
    written_bytes: int
    requests: RequestCounters | None = None
    """None where the hypervisor does not count them."""


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """Counters and sizes at one moment. Rates are the caller's to derive."""

    cpu_seconds: tuple[float, ...]
    """Processor time used so far by each virtual processor."""
    memory_actual: int
    """Bytes the guest may use now (balloon taken into account)."""
    disks: dict[int, DiskCounters]
    """By slot."""
    cpu_numbers: tuple[int, ...] = ()
    """The host's processor on which each virtual processor ran last; none where nothing really runs."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the driver is and can do on this machine."""

    name: str
    """`"qemu"` or `"sim"`."""
    version: str
    accelerator: str
    """`"kvm"`, `"tcg"` or `"sim"`."""
    accelerator_reason: str
    """A sentence: why this accelerator."""
    architectures: tuple[str, ...] = ("x86_64",)
    has_uefi: bool = False


class Hypervisor(Protocol):
    """The verbs every hypervisor has. `open` comes first and `close` last; `close` leaves domains running."""

    async def open(self, listener: DomainListener) -> list[DomainStatus]:
        """Find and adopt the domains of an earlier daemon, and return them. Events flow from now on.

        A domain that ended in between is not listed. Raises `HypervisorError` where the machine cannot run anything.
        """
        ...

    async def close(self) -> None:
        """Let go of everything without ending a domain."""
        ...

    def capabilities(self) -> Capabilities:
        """What was found by `open`."""
        ...

    async def start(self, spec: MachineSpec, *, paused: bool = False) -> DomainStatus:
        """Build the domain and let it run (or keep it paused). On failure nothing of it is left."""
        ...

    async def restore(self, spec: MachineSpec, image: Path, *, paused: bool = False) -> DomainStatus:
        """As `start`, with memory and devices from an image that `save` wrote of an equal specification."""
        ...

    async def save(self, domid: int, image: Path) -> None:
        """Pause the domain and write its memory and device state into the file, which exists and is empty.

        The domain stays, paused: the caller destroys or resumes it. On failure the domain goes on as before.
        """
        ...

    async def dump_core(self, domid: int, core: Path, limit: int, progress: Callable[[float], None]) -> None:
        """Write the guest's memory and its processors' registers into the file, which exists and is empty.

        The file becomes an ELF core of at most `limit` bytes, with holes where the memory is zero. A guest that runs
        stands still meanwhile. After a failure or a cancellation the file's content is worthless.
        """
        ...

    async def keep_crashed(self, domid: int, keep: bool) -> None:
        """Say anew whether a guest that will panic stays, paused, or ends its domain (`MachineSpec.keep_crashed`)."""
        ...

    async def pause(self, domid: int) -> None:
        """Stop the virtual processors. Pausing a domain that stands still is no error."""
        ...

    async def unpause(self, domid: int) -> None:
        """Let the virtual processors run. No error if they do. A guest that crashed does what it does after a panic."""
        ...

    async def request_shutdown(self, domid: int) -> None:
        """Press the power button. The guest may take its time or ignore it; `DomainStopped` tells."""
        ...

    async def destroy(self, domid: int) -> None:
        """End the domain at once. Returns when it is gone; `DomainStopped(DESTROYED)` has been delivered."""
        ...

    async def status(self, domid: int) -> DomainStatus:
        """The domain as it is now."""
        ...

    async def consoles(self, domid: int) -> DomainStatus:
        """The same, and the sockets of its consoles are served from now on, if they were not before."""
        ...

    async def guest_port_in_use(self, domid: int, socket: Path) -> bool:
        """Whether a program in the guest has the channel whose other end is that socket."""
        ...

    async def statistics(self, domid: int) -> DomainStatistics:
        """Measured figures of one domain."""
        ...

    async def plug_disk(self, domid: int, disk: DiskSpec) -> None:
        """Add a disk to the running guest; returns when its driver has taken it (`GuestNotRespondingError`)."""
        ...

    async def unplug_disk(self, domid: int, slot: int, *, force: bool = False) -> None:
        """Take a disk out. Without `force` the guest must agree (`GuestNotRespondingError`)."""
        ...

    async def change_medium(self, domid: int, slot: int, source: DiskSource | None) -> None:
        """Put a medium into a CD drive, or take it out."""
        ...

    async def switch_disk(self, domid: int, slot: int, source: DiskSource) -> None:
        """Continue on a new qcow2 overlay whose backing file is the disk's present content (a live snapshot).

        The overlay may be renamed after this returned; it is not to be opened by `source.path` again.
        """
        ...

    async def resize_disk(self, domid: int, slot: int, size: int) -> None:
        """Let the running guest see a disk of `size` bytes, at least as many as before.

        An image file in a format of its own grows with it; of a raw one the medium must have grown already.
        """
        ...

    async def limit_disk(self, domid: int, slot: int, limits: DiskLimits | None) -> None:
        """Change how much of the host's disk a drive may have, at once; None takes all limits away."""
        ...

    async def pull_layer(self, domid: int, slot: int, pull: LayerPull, progress: Callable[[float], None]) -> None:
        """Copy into one layer of a disk what it reads from the layers between it and `pull.below`.

        The guest goes on. Afterwards the upper layer's header names `pull.backing_name` (or nothing) as its backing
        file, and the layers between are not open any more. A failure or a cancelled call leaves the disk's content as
        it was; what has been copied stays and does no harm. A job that a dead daemon left is ended when the domain is
        adopted.
        """
        ...

    async def plug_nic(self, domid: int, nic: NicSpec) -> None:
        """Add a network card to the running guest; see `plug_disk`."""
        ...

    async def unplug_nic(self, domid: int, slot: int, *, force: bool = False) -> None:
        """Take a network card out; see `unplug_disk`."""
        ...

    async def set_memory_target(self, domid: int, target: int) -> None:
        """Move the balloon to `target` bytes. Returns when the request stands; the guest follows in its own time."""
        ...

    async def set_vcpus(self, domid: int, count: int) -> None:
        """Bring that many virtual processors online. Raises `HypervisorError` where the guest cannot."""
        ...

    async def schedule(self, domid: int, scheduling: Scheduling) -> None:
        """Have the virtual processors scheduled so from now on, those that will be plugged, too.

        Raises `HypervisorError` where the host has no such processors or does not let the daemon.
        """
        ...

    async def send_sysrq(self, domid: int, key: str) -> None:
        """Press Alt-SysRq and the key."""
        ...

    async def send_trigger(self, domid: int, trigger: str) -> None:
        """Inject `nmi`, `reset`, `power` or `sleep`. Raises `HypervisorError` for others."""
        ...
