"""Settings of a network device by the kernel's ethtool interface (include/uapi/linux/ethtool.h).

The keys are those of XenServer's `ethtool-…` settings: `rx`, `tx`, `sg`, `tso`, `ufo`, `gso`, `gro`, `lro`, `autoneg`
(`on` or `off`, also `true` or `false`), `speed` (Mbit/s), `duplex` (`half`, `full`) and `advertise` (a hexadecimal mask
as ethtool(8) takes it). Blocking, in the network namespace of the thread that calls; needs no program.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

log = logging.getLogger(__name__)

SIOCETHTOOL = 0x8946
GET_LINK, SET_LINK = 0x01, 0x02
GET_FLAGS, SET_FLAGS = 0x25, 0x26
LRO_FLAG = 1 << 15
FEATURES: Mapping[str, tuple[int, int]] = {
    "rx": (0x14, 0x15),
    "tx": (0x16, 0x17),
    "sg": (0x18, 0x19),
    "tso": (0x1E, 0x1F),
    "ufo": (0x21, 0x22),
    "gso": (0x23, 0x24),
    "gro": (0x2B, 0x2C),
}
"""The requests that read and set a feature, in the order in which features depend on each other."""

LINK_KEYS = ("autoneg", "speed", "duplex", "advertise")
KEYS = (*FEATURES, "lro", *LINK_KEYS)
ON, OFF = "on", "off"
TRUTHS: Mapping[str, str] = {"on": ON, "true": ON, "off": OFF, "false": OFF}
DUPLEXES: Mapping[str, int] = {"half": 0, "full": 1}

LINK_FORMAT = "=IIIHBBBBBBIIHBBIII"
"""`struct ethtool_cmd`."""

UNKNOWN_SPEEDS = (0, 0xFFFF, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What a device says of its medium. `speed` is in Mbit/s, 0 when unknown; `duplex` None when unknown."""

    speed: int
    duplex: str | None
    autoneg: bool
    advertise: int


class Ethtool:
    """One device. Reading what a driver does not know yields None; setting it raises `OSError`."""

    def __init__(self, device: str) -> None:
        self._name = device.encode()

    def link(self) -> LinkSettings | None:
        """Speed, duplex and negotiation."""
        try:
            with _control() as control:
                fields = _decode(self._ask(control, _request_link()))
        except OSError:
            return None
        speed = fields[3] | fields[12] << 16
        return LinkSettings(
            speed=0 if speed in UNKNOWN_SPEEDS else speed,
            duplex=next((name for name, number in DUPLEXES.items() if number == fields[4]), None),
            autoneg=bool(fields[8]),
            advertise=fields[2],
        )

    def set_link(self, wanted: LinkSettings) -> None:
        """Set speed, duplex and negotiation; the rest stays."""
        with _control() as control:
            fields = list(_decode(self._ask(control, _request_link())))
            fields[0], fields[2] = SET_LINK, wanted.advertise
            fields[3], fields[12] = wanted.speed & 0xFFFF, wanted.speed >> 16
            fields[4] = DUPLEXES.get(wanted.duplex or "", fields[4])
            fields[8] = int(wanted.autoneg)
            self._ask(control, struct.pack(LINK_FORMAT, *fields))

    def feature(self, key: str) -> bool | None:
        """Whether an offload is on."""
        request, mask = (GET_FLAGS, LRO_FLAG) if key == "lro" else (FEATURES[key][0], 1)
        try:
            with _control() as control:
                return bool(self._value(control, request) & mask)
        except OSError:
            return None

    def set_feature(self, key: str, on: bool) -> None:
        """Turn an offload on or off."""
        with _control() as control:
            if key != "lro":
                self._value(control, FEATURES[key][1], int(on))
                return
            flags = self._value(control, GET_FLAGS)
            self._value(control, SET_FLAGS, flags | LRO_FLAG if on else flags & ~LRO_FLAG)

    def _value(self, control: socket.socket, request: int, value: int = 0) -> int:
        _, found = struct.unpack("=II", self._ask(control, struct.pack("=II", request, value)))
        return int(found)

    def _ask(self, control: socket.socket, request: bytes) -> bytes:
        memory = ctypes.create_string_buffer(request, len(request))
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", self._name, ctypes.addressof(memory)))
        return memory.raw


def read(device: str) -> dict[str, str]:
    """All settings that the device knows, in the words that `assign` takes."""
    tool = Ethtool(device)
    found = {key: tool.feature(key) for key in (*FEATURES, "lro")}
    settings = {key: ON if value else OFF for key, value in found.items() if value is not None}
    link = tool.link()
    if link is not None:
        settings["autoneg"] = ON if link.autoneg else OFF
        settings["advertise"] = f"{link.advertise:#x}"
        if link.speed:
            settings["speed"] = str(link.speed)
        if link.duplex is not None:
            settings["duplex"] = link.duplex
    return settings


def normalised(settings: Mapping[str, str]) -> dict[str, str]:
    """Those settings that are ethtool's, in the words that `read` uses. What means nothing is left out, and logged."""
    kept: dict[str, str] = {}
    for key, value in settings.items():
        if key not in KEYS:
            continue
        word = _normal(key, value.strip().lower())
        if word is None:
            log.warning("the setting ethtool-%s=%.40r means nothing and is left out", key, value)
        else:
            kept[key] = word
    return kept


def assign(device: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Set what is asked for (normalised) and is not so yet; return all settings as they are then.

    What a driver cannot do is logged and stays as it was: a network must not be down for want of an offload.
    """
    tool = Ethtool(device)
    for key in (*FEATURES, "lro"):
        wanted = settings.get(key)
        if wanted is not None and tool.feature(key) is not (wanted == ON):
            with _refusals(device, key):
                tool.set_feature(key, wanted == ON)
    if any(key in settings for key in LINK_KEYS):
        with _refusals(device, "speed, duplex and autoneg"):
            _assign_link(tool, settings)
    return read(device)


def _assign_link(tool: Ethtool, settings: Mapping[str, str]) -> None:
    present = tool.link()
    if present is None:
        raise OSError(95, "Operation not supported")
    fixed = "speed" in settings or "duplex" in settings
    wanted = replace(
        present,
        speed=int(settings.get("speed", present.speed)),
        duplex=settings.get("duplex", present.duplex),
        autoneg=settings["autoneg"] == ON if "autoneg" in settings else present.autoneg and not fixed,
        advertise=int(settings["advertise"], 16) if "advertise" in settings else present.advertise,
    )
    if wanted != present:
        tool.set_link(wanted)


def _normal(key: str, value: str) -> str | None:
    if key == "speed":
        return value if value.isdecimal() and value.isascii() and 0 < int(value[:10]) < 0x7FFFFFFF else None
    if key == "duplex":
        return value if value in DUPLEXES else None
    if key == "advertise":
        try:
            mask = int(value, 16)
        except ValueError:
            return None
        return f"{mask:#x}" if 0 < mask <= 0xFFFFFFFF else None
    return TRUTHS.get(value)


def _request_link() -> bytes:
    return struct.pack(LINK_FORMAT, GET_LINK, *([0] * 17))


def _decode(answer: bytes) -> tuple[int, ...]:
    return struct.unpack(LINK_FORMAT, answer)


@contextmanager
def _control() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        yield control


@contextmanager
def _refusals(device: str, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be set on %s: %s", key, device, error.strerror)
