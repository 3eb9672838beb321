"""From what a guest's agent has written to the fields of VM_guest_metrics: a pure function.

Everything here comes from a guest and may be anything: numbers of entries and lengths are bounded, and texts are made
fit for documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

TOPICS: Final = ("attr", "control", "data", "drivers", "feature")
"""The directories that agents report in."""
MOST_ENTRIES: Final = 128
"""Of one map; the first by name stay."""
LONGEST: Final = 512
"""Characters of a value."""
UPDATED: Final = "data/updated"
"""An agent writes it when the rest is complete, and then about once a minute."""

REQUESTS: Final = frozenset({"shutdown", "sysrq", "ts"})
"""What the toolstack asks for in `control`, which no guest says of itself."""

_VERSIONS = {
    "major": "attr/PVAddons/MajorVersion",
    "minor": "attr/PVAddons/MinorVersion",
    "micro": "attr/PVAddons/MicroVersion",
    "build": "attr/PVAddons/BuildVersion",
    "application": "attr/PVAddons/Application",
}
_SYSTEM = {
    "name": "data/os_name",
    "uname": "data/os_uname",
    "distro": "data/os_distro",
    "major": "data/os_majorver",
    "minor": "data/os_minorver",
}
_MEMORY = {"free": "data/meminfo_free", "total": "data/meminfo_total"}
_NETWORKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"attr/(?:eth|xenbr)(\d{1,3})/ip"), "{0}/ip"),
    (re.compile(r"attr/(?:eth|xenbr)(\d{1,3})/ipv6/(\d{1,3})/addr"), "{0}/ipv6/{1}"),
    (re.compile(r"attr/vif/(\d{1,3})/ipv4/(\d{1,3})"), "{0}/ipv4/{1}"),
    (re.compile(r"attr/vif/(\d{1,3})/ipv6/(\d{1,3})"), "{0}/ipv6/{1}"),
)
_VOLUME = re.compile(r"data/volumes/(\d{1,3})/(name|size|free|filesystem|mount_points/\d{1,3})")
_FIRST_ADDRESS = re.compile(r"attr/vif/(\d{1,3})/ipv4/0")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""What XML cannot hold, and other control characters."""
_STATES = {"1": "yes", "0": "no"}


def metrics_fields(nodes: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Fields of VM_guest_metrics from a guest's nodes, by their paths below its own directory.

    None for a report that is not complete: until an agent has written its version and `data/updated`, nothing holds.
    """
    version = _picked(nodes, _VERSIONS)
    if UPDATED not in nodes or "major" not in version or "minor" not in version:
        return None
    return {
        "PV_drivers_version": _bounded({"micro": "-1", **version, **_children(nodes, "drivers")}),
        "PV_drivers_up_to_date": True,
        "PV_drivers_detected": True,
        "os_version": _bounded({**_children(nodes, "attr/os"), **_picked(nodes, _SYSTEM)}),
        "memory": _picked(nodes, _MEMORY),
        "disks": _bounded(_volumes(nodes)),
        "networks": _bounded(_networks(nodes)),
        "other": _other(nodes),
        "can_use_hotplug_vbd": _answer(nodes, "feature/hotplug/vbd"),
        "can_use_hotplug_vif": _answer(nodes, "feature/hotplug/vif"),
    }


def text(value: bytes) -> str:
    """A value as text: what is no UTF-8, or fit for no document, is replaced; what is too long is cut."""
    return _NOT_TEXT.sub("\ufffd", value[: LONGEST * 4].decode(errors="replace")[:LONGEST])


def _picked(nodes: Mapping[str, bytes], paths: Mapping[str, str]) -> dict[str, str]:
    return {key: text(nodes[path]) for key, path in paths.items() if path in nodes}


def _children(nodes: Mapping[str, bytes], directory: str) -> dict[str, str]:
    start = f"{directory}/"
    names = (path.removeprefix(start) for path in nodes if path.startswith(start))
    return {name: text(nodes[start + name]) for name in names if "/" not in name}


def _networks(nodes: Mapping[str, bytes]) -> dict[str, str]:
    """Addresses by card. The first IPv4 address of a card is its `ip`, too, unless that is said apart."""
    networks: dict[str, str] = {}
    for path, value in nodes.items():
        for pattern, key in _NETWORKS:
            if (found := pattern.fullmatch(path)) and value:
                networks[key.format(*found.groups())] = text(value)
    for path, value in nodes.items():
        if (found := _FIRST_ADDRESS.fullmatch(path)) and value:
            networks.setdefault(f"{found[1]}/ip", text(value))
    return networks


def _volumes(nodes: Mapping[str, bytes]) -> dict[str, str]:
    """File systems: `0/name`, `0/size` and so on."""
    found = {_VOLUME.fullmatch(path): value for path, value in nodes.items() if path.startswith("data/volumes/")}
    return {f"{volume[1]}/{volume[2]}": text(value) for volume, value in found.items() if volume}


def _other(nodes: Mapping[str, bytes]) -> dict[str, str]:
    said = {name: value for name, value in _children(nodes, "control").items() if name not in REQUESTS}
    if "data/ts" in nodes:
        said["data-ts"] = text(nodes["data/ts"])
    if "data/cant_suspend_reason" in nodes:
        said.pop("feature-suspend", None)
        said["data-cant-suspend-reason"] = text(nodes["data/cant_suspend_reason"])
    return _bounded(said, kept=("data-ts", "data-cant-suspend-reason"))


def _bounded(entries: Mapping[str, str], kept: Iterable[str] = ()) -> dict[str, str]:
    first = [*(key for key in kept if key in entries), *sorted(entries)]
    return {key: entries[key] for key in tuple(dict.fromkeys(first))[:MOST_ENTRIES]}


def _answer(nodes: Mapping[str, bytes], path: str) -> str:
    return _STATES.get(text(nodes[path]), "unspecified") if path in nodes else "unspecified"
