"""Making tap devices (the kernel's Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass, replace

from domzero.host.network.links import MARK, Link, Links
from domzero.host.network.protocol import NetworkError

DEVICE = "/dev/net/tun"
NAME_LIMIT = 15
"""Bytes of an interface's name; the kernel's IFNAMSIZ counts the final NUL."""

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_TUN_EXCL = 0x8000
IFF_VNET_HDR = 0x4000


@dataclass(frozen=True, slots=True)
class TapOwner:
    """Who may open a tap besides root."""

    uid: int
    gid: int


def make_tap(links: Links, name: str, owner: TapOwner | None) -> Link:
    """Make a persistent tap of ours, with virtio headers. Raises `NetworkError`, also when the name is taken.

    Up to the last step the kernel removes it should this process die.
    """
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            tap = links.need(name)
            links.set(tap, group=MARK)
            if owner is not None:
                fcntl.ioctl(descriptor, TUNSETOWNER, owner.uid)
                fcntl.ioctl(descriptor, TUNSETGROUP, owner.gid)
            fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NetworkError(f"tap {name} cannot be made: {error.strerror}") from error
    return replace(tap, group=MARK)
