"""What device_config says of a Ceph pool, and how Ceph's tools and QEMU are told of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from domzero.host.hypervisor.spec import RemoteImage
from domzero.host.storage import numbers
from domzero.host.storage.iscsi.settings import bracketed
from domzero.host.storage.protocol import StorageError

CONFIGURATION = {
    "monitors": "names or addresses of the cluster's monitors, comma-separated, each with :port where it is not 6789",
    "pool": "the pool that holds the disks",
    "user": "name of the Ceph user, without client. (admin)",
    "key": "the user's key",
    "conf": "a ceph.conf in /etc/ceph, which can take the place of monitors",
}
DEFAULT_PORT = 6789
"""Where every version of Ceph so far listens."""
DEFAULT_USER = "admin"
MONITORS_LIMIT = 16
MONITOR = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9][A-Za-z0-9._-]{0,252}))(?::(?P<port>\d{1,5}))?"
)
POOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,126}", re.ASCII)
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,126}", re.ASCII)
KEY = re.compile(r"[A-Za-z0-9+/]{16,256}={0,2}", re.ASCII)
CONF = re.compile(r"/etc/ceph/[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.conf", re.ASCII)
NO_CONF = "/dev/null"
"""What this host has in /etc/ceph counts only where device_config says so."""


@dataclass(frozen=True, slots=True)
class RbdSettings:
    """One pool of one cluster."""

    monitors: tuple[tuple[str, int], ...]
    pool: str
    user: str
    key: str = field(repr=False)
    conf: str

    def arguments(self) -> list[str]:
        """What every Ceph tool is told, but for the key."""
        where = [f"{bracketed(host)}:{port}" for host, port in self.monitors]
        return ["-c", self.conf, *(["-m", ",".join(where)] if where else []), "--id", self.user]

    def image(self, name: str) -> RemoteImage:
        """How QEMU finds an image."""
        options: list[tuple[str, str | int | bool]] = [("pool", self.pool), ("image", name), ("user", self.user)]
        options.append(("conf", self.conf))
        for index, (host, port) in enumerate(self.monitors):
            options += [(f"server.{index}.host", host), (f"server.{index}.port", str(port))]
        if not self.key:
            return RemoteImage("rbd", tuple(options))
        return RemoteImage("rbd", tuple(options), "key-secret", self.key)


def read_settings(device_config: Mapping[str, str]) -> RbdSettings:
    """The settings, each checked.

    Raises `StorageError` 102 for no monitors, 140 or 142 for one that cannot be, 115 for no pool, 1 for a bad name and
    20 for what is no key.
    """
    conf = device_config.get("conf", "")
    if conf and not CONF.fullmatch(conf):
        raise StorageError(numbers.INVALID_ARGUMENT, f"conf must be a .conf file in /etc/ceph, not {conf!r}")
    monitors = [each.strip() for each in device_config.get("monitors", "").split(",") if each.strip()]
    if not monitors and not conf:
        raise StorageError(numbers.SERVER_MISSING, "device_config has no monitors")
    pool = device_config.get("pool", "")
    if not pool:
        raise StorageError(numbers.PARAMETERS_MISSING, "device_config has no pool")
    user = device_config.get("user", "").removeprefix("client.") or DEFAULT_USER
    if not POOL.fullmatch(pool) or not USER.fullmatch(user):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{pool!r} is no pool that can be used, or {user!r} no user")
    key = device_config.get("key", "")
    if key and not KEY.fullmatch(key):
        raise StorageError(numbers.SECRET_INVALID, "the key is not one of Ceph's")
    found = tuple(_monitor(each) for each in monitors[:MONITORS_LIMIT])
    return RbdSettings(found, pool, user, key, conf or NO_CONF)


def _monitor(text: str) -> tuple[str, int]:
    found = MONITOR.fullmatch(text)
    if found is None:
        raise StorageError(numbers.NAME_UNKNOWN, f"{text!r} is neither a host's name nor an address")
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 1 << 16:
        raise StorageError(numbers.ISCSI_PORT, f"{port} is no port")
    try:
        return (IPv6Address(found["v6"]).compressed if found["v6"] else found["host"]), port
    except ValueError as error:
        raise StorageError(numbers.NAME_UNKNOWN, f"{text!r} is no address") from error
