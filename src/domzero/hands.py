"""Chooses and makes the drivers that touch this machine, or pretend to.

Each choice imports only what it needs: a simulated host must be there in an instant, without QEMU or netlink.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from domzero.front.simulation import Simulation, Verb
from domzero.host.bootloader.protocol import DiskLoader
from domzero.host.clock import AdjustableClock, Clock, SystemClock
from domzero.host.console.lines import HostTerminal
from domzero.host.console.terminals import Prison, Terminals
from domzero.host.contents.protocol import DiskContents
from domzero.host.control.protocol import HostControl
from domzero.host.download.http import download
from domzero.host.download.protocol import Download
from domzero.host.guest_image import GuestImage, GuestImageError, build
from domzero.host.hypervisor.protocol import Hypervisor
from domzero.host.metrics.linux import LinuxFacts
from domzero.host.metrics.protocol import HostFacts
from domzero.host.network.protocol import NetworkBackend
from domzero.host.storage.protocol import StorageDriver
from domzero.settings import Settings

log = logging.getLogger(__name__)

RESOLVER = Path("/etc/resolv.conf")

TOOLS_DISC = Path("share/domzero/guest-tools.iso")
"""Where script/guest-tools puts the disc, below what domzero is installed in."""
STAND_IN_SIZE = 65536

FIRST_USER, USERS = 0x7D000000, 0x10000
"""Machines run as users from this number on: far from people's, services' and containers' (systemd's UIDS-GIDS.md)."""
TERMINAL_USERS = range(FIRST_USER + USERS, FIRST_USER + 2 * USERS)
"""Who shows guests' text as screens."""
LOADER_USER = FIRST_USER - 1
"""Who reads the disks of machines that are about to start."""


class HandsError(Exception):
    """What the settings ask for cannot be had; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What touches the machine, real or simulated."""

    hypervisor: Hypervisor
    storage: Mapping[str, StorageDriver]
    contents: DiskContents
    network: NetworkBackend
    control: HostControl
    facts: HostFacts
    download: Download
    guest: GuestImage | None
    console: HostTerminal | None = None
    """The host's own console; None where nobody may see it."""
    terminals: Terminals = field(default_factory=lambda: Terminals(None))
    """What shows text as screens; at large where all text is made up."""
    disk_loader: DiskLoader | None = None
    """None where disks are made up."""
    guest_tools: Path | None = None
    """The disc with the guest tools; None where it has not been made."""
    simulation: Simulation | None = None
    """How a program under test moves time and steps; None on a real host."""


def make_clock(settings: Settings) -> Clock:
    """The machine's clock, or for a simulated host one that can be set forward."""
    return AdjustableClock() if settings.hypervisor == "sim" else SystemClock()


async def make_hands(
    settings: Settings, state: Path, runtime: Path, log_file: Path, clock: Clock, address: str
) -> Hands:
    """The drivers that the settings ask for, not opened yet. `address` is where others reach the host."""
    if settings.hypervisor == "sim":
        return _simulated(settings, state / "sim", log_file, clock, address)
    return await _real(settings, state, runtime, log_file)


def _simulated(settings: Settings, state: Path, log_file: Path, clock: Clock, address: str) -> Hands:
    from domzero.host.console.simulated import SimulatedTerminal
    from domzero.host.contents.sim import SimContents
    from domzero.host.control.sim import SimulatedControl
    from domzero.host.hypervisor.sim.driver import SimHypervisor
    from domzero.host.network.sim import SimNetwork, interfaces_at
    from domzero.host.storage.dummy import DummyStorage
    from domzero.host.storage.iso.driver import IsoStorage
    from domzero.host.storage.sim import SimStorage

    hypervisor = SimHypervisor(clock, state=state / "domains", version=version("domzero"))

    def step() -> Verb | None:
        stepped = hypervisor.step()
        return None if stepped is None else Verb(stepped.verb, stepped.domid)

    def waiting() -> list[Verb]:
        return [Verb(held.verb, held.domid) for held in hypervisor.waiting()]

    dummy, file = DummyStorage(clock, state / "dummy"), SimStorage(clock, state / "storage")
    return Hands(
        hypervisor,
        {
            "dummy": dummy,
            "file": file,
            "iso": IsoStorage(state / "mounts"),
        },
        SimContents(clock, dummy, file),
        SimNetwork(clock, interfaces_at(address)),
        SimulatedControl(log_file),
        LinuxFacts(),
        download,
        GuestImage(Path("/sim/vmlinuz"), Path("/sim/initrd")),
        console=None if settings.host_console is False else SimulatedTerminal(),
        guest_tools=_stand_in(state / TOOLS_DISC.name),
        simulation=Simulation(clock, waiting, step) if isinstance(clock, AdjustableClock) else None,
    )


async def _real(settings: Settings, state: Path, runtime: Path, log_file: Path) -> Hands:
    from domzero.host.bootloader.pygrub import Pygrub
    from domzero.host.contents.qemu import QemuContents
    from domzero.host.control.linux import LinuxControl
    from domzero.host.hypervisor.qemu.driver import QemuHypervisor, UserRange
    from domzero.host.storage.registry import Surroundings, make_drivers

    root = os.geteuid() == 0
    users = UserRange(FIRST_USER, USERS) if root else None
    return Hands(
        QemuHypervisor(runtime, state, accelerator=settings.accel, users=users),
        make_drivers(Surroundings(state, runtime, runtime / "mounts")),
        QemuContents(runtime),
        make_network(settings, runtime / "network", root=root),
        LinuxControl(log_file),
        LinuxFacts(),
        download,
        await _guest_image(settings, state),
        make_host_console(settings, root=root),
        Terminals(Prison(runtime / "empty", TERMINAL_USERS if root else None)),
        Pygrub(runtime, LOADER_USER if root else None),
        guest_tools=_guest_tools(Path(sys.prefix) / TOOLS_DISC),
    )


def _guest_tools(disc: Path) -> Path | None:
    if disc.is_file():
        return disc
    log.warning("the disc with the guest tools is left out: %s is made by script/guest-tools", disc)
    return None


def _stand_in(disc: Path) -> Path:
    """A disc for simulated machines, which read nothing."""
    disc.parent.mkdir(parents=True, exist_ok=True)
    disc.write_bytes(bytes(STAND_IN_SIZE))
    return disc


def make_host_console(settings: Settings, *, root: bool) -> HostTerminal | None:
    """The real host's own console: only for root, who alone may log others in, and only where the settings ask."""
    if not settings.host_console:
        return None
    if not root:
        log.warning("the host's own console takes root's rights; nobody will see it")
        return None
    from domzero.host.console.login import LoginTerminal

    return LoginTerminal()


def managed_interfaces(settings: Settings) -> frozenset[str] | None:
    """The interfaces that may be configured, None for all. A simulated host has nothing to lose."""
    named: frozenset[str] = settings.manage_interfaces or frozenset()
    everything = "all" in named or (settings.hypervisor == "sim" and settings.manage_interfaces is None)
    return None if everything else named


def make_network(settings: Settings, runtime: Path, *, root: bool) -> NetworkBackend:
    """The network backend that the setting names; `auto` takes what the rights allow. Raises `HandsError`."""
    name = settings.network
    if name == "user" or (name == "auto" and not root):
        from domzero.host.network.user import UserNetwork

        return UserNetwork()
    if not root:
        raise HandsError(f"the setting network = {name} takes root's rights; without them there is user")
    # The machine's list of name servers is nobody's business as long as domzero looks after none of its interfaces.
    resolver = RESOLVER if settings.manage_interfaces else None
    if name == "openvswitch":
        from domzero.host.network.openvswitch.backend import OpenVSwitchNetwork

        return OpenVSwitchNetwork(runtime=runtime, resolver=resolver)
    from domzero.host.network.bridge import BridgeNetwork

    return BridgeNetwork(runtime=runtime, resolver=resolver)


async def _guest_image(settings: Settings, state: Path) -> GuestImage | None:
    roots = [settings.guest_image_dir] if settings.guest_image_dir else None
    try:
        return await build(state / "guest", roots=roots)
    except GuestImageError as error:
        log.warning("the template Tiny Linux is left out: %s", error)
        return None
