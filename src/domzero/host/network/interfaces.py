"""The host's own interfaces, as they are: netlink, ethtool, sysfs, the list of PCI names, the list of name servers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from domzero.host.network.ethtool import Ethtool
from domzero.host.network.links import Link, Links
from domzero.host.network.protocol import InterfaceInfo

PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
PCI_LINE = re.compile(r"(\t?)([0-9a-f]{4})\s+(.+)", re.ASCII)
USEFUL_KINDS = frozenset({"", "bond", "ipvlan", "macvlan", "team"})


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """Where to read what netlink does not tell. The first list of PCI names that is there is used."""

    sysfs: Path = Path("/sys")
    resolver: Path = Path("/etc/resolv.conf")
    pci_names: tuple[Path, ...] = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))


@dataclass(frozen=True, slots=True)
class Hardware:
    """What sysfs says of an interface; ids are four hexadecimal digits, empty for what is not on a PCI bus."""

    vendor_id: str
    device_id: str
    pci_address: str


def describe(links: Links, facts: InterfaceFacts) -> list[InterfaceInfo]:
    """Every useful interface. The addresses of one that is on a bridge or bond are those of that."""
    present = {link.index: link for link in links.all()}
    addresses, gateways = links.addresses(), links.gateways()
    ours = {link.index for link in present.values() if link.ours}
    useful = [link for link in present.values() if is_useful(link, on_ours=link.master in ours)]
    hardware = {link.index: read_hardware(facts.sysfs, link.name) for link in useful}
    ids = {(found.vendor_id, found.device_id) for found in hardware.values() if found.vendor_id}
    vendors, devices = read_pci_names(facts.pci_names, ids)
    servers = read_name_servers(facts.resolver)
    described: list[InterfaceInfo] = []
    for link in useful:
        found, medium = hardware[link.index], Ethtool(link.name).link()
        holder = _holder(link, present)
        gateway = gateways.get(holder, "")
        described.append(
            InterfaceInfo(
                name=link.name,
                mac=link.mac,
                mtu=link.mtu,
                carrier=link.carrier,
                speed=medium.speed if medium is not None else 0,
                duplex=medium is not None and medium.duplex == "full",
                vendor_id=found.vendor_id,
                vendor_name=vendors.get(found.vendor_id, ""),
                device_id=found.device_id,
                device_name=devices.get((found.vendor_id, found.device_id), ""),
                pci_bus_path=found.pci_address,
                addresses=tuple(addresses.get(holder, ())),
                gateway=gateway,
                dns=servers if gateway else (),
                received_bytes=link.received_bytes,
                sent_bytes=link.sent_bytes,
            )
        )
    return described


def is_useful(link: Link, *, on_ours: bool = False) -> bool:
    """Whether an interface leads out of the host: a device, or what a container has instead of one.

    `on_ours`: it is a port of a bridge, or member of a bond, that we made.
    """
    if link.is_loopback or link.ours or not link.is_ethernet:
        return False
    return link.kind in USEFUL_KINDS or (link.kind == "veth" and link.peer_elsewhere and (on_ours or not link.master))


def read_hardware(sysfs: Path, name: str) -> Hardware:
    """What is unknown is empty."""
    pci = _pci_device(sysfs / "class" / "net" / name)
    return Hardware(
        vendor_id=_read(pci / "vendor").removeprefix("0x") if pci else "",
        device_id=_read(pci / "device").removeprefix("0x") if pci else "",
        pci_address=pci.name if pci else "",
    )


def read_pci_names(
    paths: Iterable[Path], wanted: set[tuple[str, str]]
) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The names of these vendors, and of these (vendor, device); unknown ones are left out."""
    vendors: dict[str, str] = {}
    devices: dict[tuple[str, str], str] = {}
    path = next((path for path in paths if path.is_file()), None)
    if path is None or not wanted:
        return vendors, devices
    wanted_vendors = {vendor for vendor, _ in wanted}
    vendor = ""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("C "):
                break  # Device classes follow.
            match = PCI_LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                continue
            if not match[1]:
                vendor = match[2]
                if vendor in wanted_vendors:
                    vendors[vendor] = match[3]
            elif (vendor, match[2]) in wanted:
                devices[vendor, match[2]] = match[3]
    return vendors, devices


def read_name_servers(resolver: Path) -> tuple[str, ...]:
    """The addresses in a file as resolv.conf(5) describes it."""
    servers: list[str] = []
    for line in _read(resolver).splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
    return tuple(servers)


def _holder(link: Link, present: dict[int, Link]) -> int:
    """The index of the interface that has this one's addresses."""
    seen = {link.index}
    while link.master in present and link.master not in seen:
        link = present[link.master]
        seen.add(link.index)
    return link.index


def _pci_device(directory: Path) -> Path | None:
    device = (directory / "device").resolve()
    return next((path for path in (device, *device.parents) if PCI_ADDRESS.fullmatch(path.name)), None)


def _read(path: Path) -> str:
    """A small file without the white space around it, empty when it cannot be read: not every driver knows a speed."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
