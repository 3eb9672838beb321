"""What device_config says of an iSCSI target. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError

DEFAULT_PORT = 3260
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?", re.ASCII)
IQN = re.compile(
    r"iqn\.\d{4}-\d{2}\.[A-Za-z0-9._:-]{1,211}|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16}(?:[0-9A-Fa-f]{16})?"
)
"""RFC 7143 section 4.2.7, without the letters beyond ASCII: what every initiator takes."""
CHAP_LIMIT = 255
"""Bytes of a name or secret; RFC 7143 section 12.1.4 and common targets allow no more."""


@dataclass(frozen=True, slots=True)
class Chap:
    """Who we are for a target that wants to know."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Portal:
    """Where targets are."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class IscsiSettings:
    """One target. `iqn` is empty where device_config does not say it."""

    portal: Portal
    iqn: str
    initiator: str
    chap: Chap | None = None


def bracketed(host: str) -> str:
    """A host as it stands before a colon and a port."""
    return f"[{host}]" if ":" in host else host


def read_settings(device_config: Mapping[str, str], initiator: str) -> IscsiSettings:
    """The settings, each checked; `initiator` is our own name unless `localIQN` says another.

    Raises `StorageError` 95 for no target, 140 or 142 for one that cannot be, 106 for a bad name and 68 for
    credentials that cannot be used.
    """
    host = device_config.get("target", "").strip()
    if not host:
        raise StorageError(numbers.TARGET_MISSING, "device_config has no target")
    iqn = device_config.get("targetIQN", "").strip()
    ours = device_config.get("localIQN", "").strip() or initiator
    for name in (iqn, ours):
        if name and not IQN.fullmatch(name):
            raise StorageError(numbers.TARGET_IQN_INVALID, f"{name!r} is no iSCSI name")
    return IscsiSettings(portal(host, device_config.get("port", "")), iqn, ours, _chap(device_config))


def portal(host: str, port: str) -> Portal:
    """Where a target is; IPv6 with or without brackets. Raises `StorageError` 140 or 142."""
    return Portal(_host(host), _port(port))


def named(settings: IscsiSettings) -> IscsiSettings:
    """The settings, which must name a target. Raises `StorageError` 96."""
    if not settings.iqn:
        raise StorageError(numbers.TARGET_IQN_MISSING, "device_config has no targetIQN")
    return settings


def _host(host: str) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and "%" not in bare:
        with suppress(ValueError):  # refused below, as any other name that cannot be
            return IPv6Address(bare).compressed
    elif HOST.fullmatch(host):
        return host
    raise StorageError(numbers.NAME_UNKNOWN, f"{host!r} is neither a host's name nor an address")


def _port(port: str) -> int:
    if not port:
        return DEFAULT_PORT
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise StorageError(numbers.ISCSI_PORT, f"{port!r} is no port")
    return int(port)


def _chap(device_config: Mapping[str, str]) -> Chap | None:
    if device_config.get("incoming_chapuser") or device_config.get("incoming_chappassword"):
        raise StorageError(
            numbers.ISCSI_LOGIN, "QEMU cannot check a target's own CHAP password, so incoming_chapuser is refused"
        )
    user, password = device_config.get("chapuser", ""), device_config.get("chappassword", "")
    if not user and not password:
        return None
    if not user or not password:
        raise StorageError(numbers.ISCSI_LOGIN, "chapuser and chappassword go together")
    for text in (user, password):
        if len(text.encode()) > CHAP_LIMIT or not text.isprintable():
            raise StorageError(numbers.ISCSI_LOGIN, "a CHAP name or password is too long or has control characters")
    return Chap(user, password)
