"""Disks that grow under a running guest."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import names, slots
from domzero.host.hypervisor.qemu.complaints import explained
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError
from domzero.host.hypervisor.qemu.places import SECTOR, Descriptor, Label
from domzero.host.hypervisor.qemu.slots import Holdings


@dataclass(frozen=True, slots=True)
class Part:
    """A raw node that shows a part of its file."""

    node: str
    slot: int
    number: int
    offset: int
    size: int
    read_only: bool

    @property
    def file(self) -> str:
        """The node of the file."""
        return names.file(self.slot, self.number)

    def reopened(self, file: str, size: int | None) -> dict[str, object]:
        """The options of `blockdev-reopen`, which wants all of them."""
        options = {"driver": "raw", "node-name": self.node, "offset": self.offset, "file": file}
        if not self.read_only:
            options["discard"] = "unmap"
        return {**options, "read-only": self.read_only, **({} if size is None else {"size": size})}


def part_of(node: Mapping[str, Any]) -> Part | None:
    """What `query-named-block-nodes` says of a part of a file, None for any other node."""
    options = _options(node)
    return _part(node, options["size"]) if "size" in options else None


def _part(node: Mapping[str, Any], size: int) -> Part | None:
    place, options = names.parse(node["node-name"]), _options(node)
    if place is None or "offset" not in options:
        return None
    return Part(node["node-name"], place[1], place[2], int(options["offset"]), int(size), bool(node["ro"]))


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a raw node that shows less than all of its file, empty for any other."""
    name = str(node["image"]["filename"])
    if node["drv"] != "raw" or not name.startswith("json:"):
        return {}
    options = json.loads(name.removeprefix("json:"))
    return options if options.get("driver") == "raw" else {}


async def resize_disk(domain: Domain, slot: int, size: int) -> None:
    """Let the guest see a larger disk. Raises `HypervisorError`; then it is as it was."""
    node = await slots.filled(domain, slot)
    found = await slots.holdings(domain)
    if size % SECTOR or size < found.size(node):
        raise HypervisorError(f"disk {slot} has {found.size(node)} bytes and cannot have {size}")
    part = next((part for each in found.nodes if each["node-name"] == node and (part := part_of(each))), None)
    if part is not None:
        await _enlarge(domain, found, part, size)
        return
    if names.part(*(names.parse(node) or ("", 0, 0))[1:]) in found.names:
        raise HypervisorError(f"disk {slot} cannot grow while it is in use: it is an image in a part of a device")
    try:
        await domain.monitor.execute("block_resize", node_name=node, size=size)
    except CommandRefusedError as error:
        raise HypervisorError(
            f"disk {slot} cannot be made larger while it is in use: {explained(str(error))}"
        ) from error


async def _enlarge(domain: Domain, found: Holdings, part: Part, size: int) -> None:
    """Make a part of a file larger.

    A part's size can be changed, but QEMU tells a guest of a new size only when it truncates, which it refuses for a
    part, and which would cut a file that goes on behind the part. So the guest is held for some milliseconds, and what
    is truncated in the meantime is a blank file in the place of the disk's.
    """
    if found.size(part.file) < part.offset + size:
        raise HypervisorError(f"disk {part.slot} cannot have {size} bytes: its medium ends before")
    number = slots.take(domain)
    fd = os.memfd_create("blank", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, part.offset + size)
        status = os.fstat(fd)
        label = Label(part.slot, True, (status.st_dev, status.st_ino))
        await slots.add_descriptor(domain, Descriptor(fd, number, label))
    finally:
        os.close(fd)
    keeper, blank = names.keeper(part.slot, number), names.blank(part.slot, number)
    blank_file = {"driver": "file", "node-name": blank, "filename": f"/dev/fdset/{number}", "locking": "off"}
    kept = {"driver": "raw", "node-name": keeper, "read-only": True, "offset": part.offset, "size": size}
    try:
        await domain.monitor.command("blockdev-add", blank_file)
        async with domain.held():
            await domain.monitor.command("blockdev-add", {**kept, "file": part.file})
            await _truncate(domain, part, blank, size)
    finally:
        await asyncio.shield(slots.let_go(domain, part.slot))


async def _truncate(domain: Domain, part: Part, blank: str, size: int) -> None:
    final = part.size
    try:
        await _reopen(domain, part, blank, None)
        await domain.monitor.execute("block_resize", node_name=part.node, size=size)
        final = size
    finally:
        await asyncio.shield(_reopen(domain, part, part.file, final))


async def recover(domain: Domain) -> None:
    """Bring what a daemon left half done to its end: no disk stays on a blank, and a held guest goes on."""
    nodes = (await slots.holdings(domain)).nodes
    for keeper in nodes:
        place, kept = names.parse(keeper["node-name"]), part_of(keeper)
        if place is None or place[0] != "keeper" or kept is None:
            continue
        for node in nodes:
            part = _part(node, kept.size)
            if part is not None and part.slot == kept.slot and part_of(node) is None:
                await _reopen(domain, part, part.file, part.size)
    if domain.handle.held:
        await domain.release_hold()


async def _reopen(domain: Domain, part: Part, file: str, size: int | None) -> None:
    await domain.monitor.command("blockdev-reopen", {"options": [part.reopened(file, size)]})
