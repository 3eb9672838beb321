"""What QEMU holds for each disk slot: it is the record, so a daemon that adopts a domain needs none of its own.

Names say which slot a node belongs to (`names`), labels which file a descriptor is (`places.Label`). What belongs to a
slot and is used by nothing is let go.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.qemu.complaints import explained
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.images import OpenedImage
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError
from domzero.host.hypervisor.qemu.places import Descriptor, Identity, Label
from domzero.host.hypervisor.qemu.remote import secret_object

SET = re.compile(r"/dev/fdset/(\d{1,9})")
OWNED = ("image", "keeper", "blank", "void")
"""The kinds of nodes that stay until the monitor deletes them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a disk that is a file of this host and in use."""

    node: str
    number: int
    identity: Identity
    read_only: bool
    """Whether QEMU has it open for reading only."""
    descriptors: Mapping[int, Label]
    """What is in its set, by QEMU's numbers."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Block nodes and descriptor sets, as QEMU lists them."""

    nodes: Sequence[Mapping[str, Any]]
    sets: Sequence[Mapping[str, Any]]

    @property
    def names(self) -> set[str]:
        """Of all nodes."""
        return {node["node-name"] for node in self.nodes}

    @property
    def used(self) -> set[int]:
        """Numbers of the sets that a node has a file of."""
        return {int(found[1]) for node in self.nodes if (found := SET.fullmatch(str(node.get("file"))))}

    def unused(self, slot: int | None) -> list[int]:
        """Numbers of the sets of a slot (of every slot: None) that no node has a file of."""
        used = self.used
        return [
            number
            for number, labelled in self._labelled()
            if number not in used and slot in (None, *(label.slot for label in labelled.values()))
        ]

    def layers(self, slot: int | None) -> list[Layer]:
        """The layers in use in a slot (in any: None), in no particular order."""
        read_only, used = {node["node-name"]: bool(node["ro"]) for node in self.nodes}, self.used
        found = []
        for number, labelled in self._labelled():
            label = next(iter(labelled.values()))
            if number not in used or slot not in (None, label.slot):
                continue
            for node in read_only.keys() & {names.image(label.slot, number), names.layer(label.slot, number)}:
                found.append(Layer(node, number, label.identity, read_only[node], labelled))
        return found

    def owned(self, slot: int | None) -> list[str]:
        """The monitor's own nodes of a slot (of every slot: None), the newest, which are on top, first."""
        numbered = [(found, node["node-name"]) for node in self.nodes if (found := names.parse(node["node-name"]))]
        mine = [(place[2], name) for place, name in numbered if place[0] in OWNED and slot in (None, place[1])]
        return [name for _, name in sorted(mine, reverse=True)]

    def size(self, node: str) -> int:
        """The virtual size of a node in bytes. Raises `HypervisorError` where there is none."""
        for found in self.nodes:
            if found["node-name"] == node:
                return int(found["image"]["virtual-size"])
        raise HypervisorError(f"QEMU has no block node {node}")

    def _labelled(self) -> Iterable[tuple[int, dict[int, Label]]]:
        """Number and labels (by descriptor) of every set of ours."""
        for entry in self.sets:
            labelled = {fd["fd"]: label for fd in entry["fds"] if (label := Label.parse(fd.get("opaque")))}
            if labelled:
                yield entry["fdset-id"], labelled


async def holdings(domain: Domain) -> Holdings:
    """Ask QEMU."""
    nodes, sets = await asyncio.gather(
        domain.monitor.execute("query-named-block-nodes", flat=True), domain.monitor.execute("query-fdsets")
    )
    return Holdings(nodes, sets)


async def drive(domain: Domain, slot: int) -> tuple[str, str | None]:
    """Where in QEMU's object tree a slot's device has its medium, and the block node that is, None for an empty drive.

    Raises `HypervisorError` without a device.
    """
    device = names.disk(slot)
    for block in await domain.monitor.execute("query-block"):
        path = str(block.get("qdev", ""))
        if f"/{device}/" in f"/{path}/":
            inserted = block.get("inserted")
            return path, None if inserted is None else str(inserted["node-name"])
    raise HypervisorError(f"the domain has no disk in slot {slot}")


async def medium(domain: Domain, slot: int) -> str | None:
    """The block node a slot's device uses now, None for an empty drive. Raises `HypervisorError` without a device."""
    return (await drive(domain, slot))[1]


async def filled(domain: Domain, slot: int) -> str:
    """As `medium`, of a slot that has one. Raises `HypervisorError`."""
    node = await medium(domain, slot)
    if node is None:
        raise HypervisorError(f"the drive in slot {slot} is empty")
    return node


def take(domain: Domain, count: int = 1) -> int:
    """The first of `count` numbers never used before in the domain."""
    first = domain.next_number
    domain.next_number += count
    return first


async def send(domain: Domain, slot: int, image: OpenedImage) -> None:
    """Hand over what an image needs and make its block node. On failure nothing of it is left.

    The image is closed here in any case. A password stays in QEMU only as long as it takes to open the image.
    """
    try:
        for descriptor in image.descriptors:
            await add_descriptor(domain, descriptor)
        try:
            for secret in image.secrets:
                password = os.read(secret.fd, 1 << 16).decode()
                await domain.monitor.command("object-add", secret_object(secret.id, data=password))
            await domain.monitor.command("blockdev-add", image.blockdev)
        except CommandRefusedError as error:
            raise HypervisorError(f"disk {slot} cannot be opened: {explained(str(error))}") from error
        finally:
            await asyncio.shield(forget_secrets(domain, image))
    except BaseException:
        await asyncio.shield(let_go(domain, slot))
        raise
    finally:
        image.close()


async def add_descriptor(domain: Domain, descriptor: Descriptor) -> int:
    """Put a descriptor into its set and return its number in QEMU; ours stays open."""
    added = await domain.monitor.with_descriptor(
        descriptor.fd, "add-fd", fdset_id=descriptor.set, opaque=str(descriptor.label)
    )
    return int(added["fd"])


async def forget_secrets(domain: Domain, image: OpenedImage) -> None:
    """Take an image's passwords out of QEMU, where they are."""
    for secret in image.secrets:
        await quietly(domain, "object-del", id=secret.id)


async def let_go(domain: Domain, slot: int | None) -> list[str]:
    """Delete what belongs to a slot (to any: None) and is used by nothing; return the nodes that are in use."""
    found = await holdings(domain)
    kept = []
    for node in found.owned(slot):
        try:
            await domain.monitor.execute("blockdev-del", node_name=node)
        except CommandRefusedError:  # a device uses it, or another node stands on it
            kept.append(node)
    left = await holdings(domain)
    for number in left.unused(slot):
        await remove_descriptors(domain, fdset_id=number)
    for layer in left.layers(slot):
        if layer.read_only:
            await forbid_writing(domain, layer)
    return kept


async def forbid_writing(domain: Domain, layer: Layer) -> None:
    """Take the descriptors for writing out of a layer's set.

    A lock is the open file's, and a file is open as long as the set has it: a descriptor that QEMU has left would keep
    its lock.
    """
    for descriptor, label in layer.descriptors.items():
        if label.writable:
            await remove_descriptors(domain, fdset_id=layer.number, fd=descriptor)


async def remove_descriptors(domain: Domain, **which: int) -> None:
    """Have QEMU close a descriptor of a set, or all. While its guest is paused, QEMU 7.2 does not, until told again."""
    if domain.state is not RunState.RUNNING:
        domain.has_unclosed = True
    await quietly(domain, "remove-fd", **which)


async def close_unclosed(domain: Domain) -> None:
    """Have QEMU close what it did not while its guest was paused."""
    if domain.has_unclosed:
        domain.has_unclosed = False
        await let_go(domain, None)


async def quietly(domain: Domain, command: str, **arguments: object) -> None:
    """A command whose refusal only says that there was nothing to do."""
    try:
        await domain.monitor.execute(command, **arguments)
    except CommandRefusedError:
        return
