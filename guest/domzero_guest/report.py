"""What the guest tells of itself: pure functions from what the system's files say to nodes of the store.

The nodes are those that XenServer's hosts read (`data`, `attr/PVAddons`, `attr/vif`); `data/volumes` is as its Windows
agent has it.
"""

import re
import socket
from typing import Callable, Dict, Iterable, List, NamedTuple, Tuple

from . import BUILD, VERSION
from .netlink import Address

Nodes = Dict[str, str]

LONGEST = 1024
"""Bytes of a value."""
MOST_ADDRESSES = 16
"""Of a card and a family."""
MOST_VOLUMES = 32
LISTS = ("attr/vif", "data/volumes")
"""Directories with entries that come and go."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ASSIGNMENT = re.compile(r"""([A-Z][A-Z0-9_]*)=(?:"(.*)"|'(.*)'|(.*))""")
_OCTAL = re.compile(r"\\([0-7]{3})")
_NO_VOLUMES = ("squashfs", "iso9660", "udf", "overlay")


class Interface(NamedTuple):
    """A network interface of the guest."""

    number: int
    mac: str
    is_device: bool
    """It is a card itself, not something that is made of one."""


class Mount(NamedTuple):
    """A mounted file system of a disk."""

    device: str
    point: str
    type: str


class Space(NamedTuple):
    """Bytes of a file system."""

    size: int
    free: int


def text(value: str) -> str:
    """A value that is fit to be told: bounded, without control characters."""
    clean = _CONTROL.sub(" ", value).strip()
    return clean.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore")


def own_nodes() -> Nodes:
    """Who speaks."""
    major, minor, micro = VERSION.split(".")
    return {
        "attr/PVAddons/Installed": "1",
        "attr/PVAddons/MajorVersion": major,
        "attr/PVAddons/MinorVersion": minor,
        "attr/PVAddons/MicroVersion": micro,
        "attr/PVAddons/BuildVersion": BUILD,
    }


def system_nodes(os_release: str, kernel: str) -> Nodes:
    """The operating system, from os-release(5) and uname(2)'s release."""
    known = {}
    for line in os_release.splitlines():
        found = _ASSIGNMENT.fullmatch(line.strip())
        if found:
            known[found.group(1)] = found.group(2) or found.group(3) or found.group(4) or ""
    major, _, rest = known.get("VERSION_ID", "").partition(".")
    nodes = {
        "data/os_name": known.get("PRETTY_NAME") or known.get("NAME") or "Linux",
        "data/os_distro": known.get("ID") or "linux",
        "data/os_uname": kernel,
        "data/os_majorver": major,
        "data/os_minorver": rest.partition(".")[0],
    }
    return {path: text(value) for path, value in nodes.items() if text(value)}


def memory_nodes(meminfo: str) -> Nodes:
    """KiB there are, and KiB that programs could still have (`MemAvailable`), from proc(5)'s meminfo."""
    known = dict(re.findall(r"^(\w+): +(\d{1,18}) kB$", meminfo, re.MULTILINE))
    free = known.get("MemAvailable", known.get("MemFree"))
    nodes = {"data/meminfo_total": known.get("MemTotal"), "data/meminfo_free": free}
    return {path: value for path, value in nodes.items() if value is not None}


def address_nodes(cards: Dict[int, str], interfaces: Iterable[Interface], addresses: Iterable[Address]) -> Nodes:
    """Addresses by card. `cards` are the host's numbers with their MAC addresses.

    What is made of a card (a bridge, a VLAN) has its address, so that its addresses are told as the card's, too.
    """
    by_number = {interface.number: interface for interface in interfaces}
    nodes: Nodes = {}
    for number, mac in cards.items():
        own = [
            (not by_number[address.interface].is_device, address.scope, address)
            for address in addresses
            if address.interface in by_number and by_number[address.interface].mac == mac.lower()
        ]
        for family, name in ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")):
            # The sort is stable: the kernel names the primary address first.
            listed = [entry[2].text for entry in sorted(own, key=lambda entry: entry[:2]) if entry[2].family == family]
            for position, address_text in enumerate(dict.fromkeys(listed[:MOST_ADDRESSES])):
                nodes["attr/vif/{}/{}/{}".format(number, name, position)] = address_text
    return nodes


def mounts(mountinfo: str) -> List[Mount]:
    """File systems of disks, each once, from proc(5)'s mountinfo."""
    found: Dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, described = before.split(), after.split()
        if not dash or len(fields) < 5 or len(described) < 2:
            continue
        kind, source = described[0], _unescaped(described[1])
        if source.startswith("/dev/") and kind not in _NO_VOLUMES and not kind.startswith("fuse"):
            found.setdefault(fields[2], Mount(source, _unescaped(fields[4]), kind))
    return list(found.values())[:MOST_VOLUMES]


def volume_nodes(volumes: Iterable[Tuple[Mount, Space]]) -> Nodes:
    """File systems with their sizes in bytes."""
    nodes: Nodes = {}
    for number, (mount, space) in enumerate(volumes):
        place = "data/volumes/{}/".format(number)
        nodes[place + "name"] = text(mount.device)
        nodes[place + "mount_points/0"] = text(mount.point)
        nodes[place + "filesystem"] = text(mount.type)
        nodes[place + "size"] = str(space.size)
        nodes[place + "free"] = str(space.free)
    return nodes


def stale(listed: Callable[[str], Iterable[str]], wanted: Nodes, directory: str, depth: int = 4) -> List[str]:
    """Nodes below a directory that are not among those wanted, nor above one of them."""
    gone: List[str] = []
    for name in list(listed(directory))[:256]:
        path = "{}/{}".format(directory, name)
        if path in wanted:
            continue
        if depth and any(other.startswith(path + "/") for other in wanted):
            gone += stale(listed, wanted, path, depth - 1)
        else:
            gone.append(path)
    return gone


def _unescaped(field: str) -> str:
    """A field of mountinfo, in which blanks and the like are octal."""
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8) & 0x7F), field)
