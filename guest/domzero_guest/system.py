"""The guest's own system, as far as the agent reads and changes it. All files are below a root, which tests choose."""

import logging
import os
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from . import netlink, report
from .commands import Run, run

log = logging.getLogger(__name__)

_LONGEST_FILE = 1 << 20


def _set_clock(seconds: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, seconds)


def free_space(point: str) -> Optional[report.Space]:
    """The size of a mounted file system, None where it does not tell."""
    try:
        status = os.statvfs(point)
    except OSError as error:
        log.debug("%s: %s", point, error.strerror)
        return None
    return report.Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


class System(NamedTuple):
    """Everything outside of the agent's own memory, with the real thing as default."""

    root: str = "/"
    run: Run = run
    addresses: Callable[[], List[netlink.Address]] = netlink.addresses
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    set_clock: Callable[[float], None] = _set_clock
    sync: Callable[[], None] = os.sync
    space: Callable[[str], Optional[report.Space]] = free_space

    def path(self, name: str) -> str:
        """Where a file is."""
        return os.path.join(self.root, name)

    def text(self, name: str) -> str:
        """What a file says, empty where it is not there."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read(_LONGEST_FILE)
        except OSError as error:
            log.debug("%s: %s", name, error.strerror)
            return ""

    def put(self, path: str, value: str) -> bool:
        """Hand something to the kernel through a file that is there; whether it took it. What fails is logged."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode("ascii"))
            finally:
                os.close(descriptor)
        except OSError as error:
            log.error("%s: %s", path, error.strerror)
            return False
        return True

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs here (sd_booted(3))."""
        return os.path.isdir(self.path("run/systemd/system"))

    def allowed_keys(self) -> int:
        """`kernel.sysrq`; everything where it cannot be read, as the kernel has it."""
        value = self.text("proc/sys/kernel/sysrq").strip()
        return int(value) if value.isdecimal() else 1

    def interfaces(self) -> List[report.Interface]:
        """The network interfaces that have a MAC address."""
        found = []
        directory = self.path("sys/class/net")
        for name in sorted(_listed(directory)):
            index = self.text("sys/class/net/{}/ifindex".format(name)).strip()
            mac = self.text("sys/class/net/{}/address".format(name)).strip().lower()
            if index.isdecimal() and mac:
                is_device = os.path.exists(os.path.join(directory, name, "device"))
                found.append(report.Interface(int(index), mac, is_device))
        return found

    def volumes(self) -> List[Tuple[report.Mount, report.Space]]:
        """File systems of disks with their sizes."""
        measured = []
        for mount in report.mounts(self.text("proc/self/mountinfo")):
            space = self.space(self.path(mount.point.lstrip("/")))
            if space is not None:
                measured.append((mount, space))
        return measured

    def card_nodes(self, cards: Dict[int, str]) -> report.Nodes:
        """The addresses of the host's cards."""
        try:
            addresses = self.addresses()
        except OSError as error:
            log.error("addresses cannot be read: %s", error)
            return {}
        return report.address_nodes(cards, self.interfaces(), addresses)

    def nodes(self) -> report.Nodes:
        """All that is told, but for addresses."""
        kernel = self.text("proc/sys/kernel/osrelease").strip()
        return {
            **report.own_nodes(),
            **report.system_nodes(self.text("etc/os-release") or self.text("usr/lib/os-release"), kernel),
            **report.memory_nodes(self.text("proc/meminfo")),
            **report.volume_nodes(self.volumes()),
        }


def _listed(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        log.debug("%s: %s", directory, error.strerror)
        return []
