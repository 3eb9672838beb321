"""Disks, media and network cards of a running domain.

QEMU itself is the record of what is plugged: names follow from slots (`names`). Block nodes that the monitor made for a
slot begin with `image-<slot>-`; the one the device uses may stand on others when `switch_disk` was called.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from domzero.host.hypervisor.protocol import GuestNotRespondingError, HypervisorError
from domzero.host.hypervisor.qemu import devices, names
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.images import OpenedImage, backing_chain, open_image
from domzero.host.hypervisor.qemu.launch import RESOLVER, is_writable, open_tap
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError
from domzero.host.hypervisor.spec import DiskSource, DiskSpec, NicSpec, TapBackend

FORCED_SECONDS = 2.0
"""How long a guest is given when the caller will not take no for an answer."""


async def plug_disk(domain: Domain, disk: DiskSpec, image_tool: str) -> None:
    """Add a disk or CD drive. On failure nothing of it is left in QEMU. Raises `HypervisorError`."""
    if disk.slot not in names.DISK_SLOTS:
        raise HypervisorError(f"there is no disk slot {disk.slot}")
    node = None
    if disk.source is not None:
        node = await _add_image(domain, disk.slot, disk.source, image_tool, writable=is_writable(disk))
    try:
        await domain.monitor.command("device_add", devices.disk_device(disk, node))
    except BaseException:
        if node is not None:
            await asyncio.shield(_remove_image(domain, node))
        raise


async def unplug_disk(domain: Domain, slot: int, timeout: float, *, force: bool) -> None:
    """Take a disk out and let go of its files.

    With `force` a guest that will not part with it keeps a device that answers reads with errors; the files are free.
    """
    try:
        await _delete_device(domain, names.disk(slot), FORCED_SECONDS if force else timeout)
    except GuestNotRespondingError:
        if not force:
            raise
        await _hollow_out(domain, slot)
    await _remove_images(domain, slot)


async def change_medium(domain: Domain, slot: int, source: DiskSource | None, image_tool: str) -> None:
    """Swap the disc in a CD drive, even if the guest locked its door. A failure may leave the drive empty."""
    device = names.disk(slot)
    new = None if source is None else await _add_image(domain, slot, source, image_tool, writable=False)
    try:
        await domain.monitor.execute("blockdev-open-tray", id=device, force=True)
        old = await _medium(domain, device)
        if old is not None:
            await domain.monitor.execute("blockdev-remove-medium", id=device)
        if new is not None:
            await domain.monitor.execute("blockdev-insert-medium", id=device, node_name=new)
        await domain.monitor.execute("blockdev-close-tray", id=device)
    except BaseException:
        if new is not None:
            await asyncio.shield(_remove_image(domain, new))
        raise
    if old is not None:
        await _remove_image(domain, old)


async def switch_disk(domain: Domain, slot: int, source: DiskSource) -> None:
    """Put a prepared, empty overlay on top of a disk's content; the guest notices nothing."""
    current = await _medium(domain, names.disk(slot))
    if current is None:
        raise HypervisorError(f"there is no disk in slot {slot}")
    node = _take_name(domain, slot, 1)
    overlay = open_image((source,), node, domain.next_set - 1, writable=True)
    await _send_image(domain, overlay)
    try:
        await domain.monitor.execute("blockdev-snapshot", node=current, overlay=node)
    except BaseException:
        await asyncio.shield(_remove_image(domain, node))
        raise


async def plug_nic(domain: Domain, nic: NicSpec) -> None:
    """Add a network card. On failure nothing of it is left in QEMU. Raises `HypervisorError`."""
    if nic.slot not in names.NIC_SLOTS:
        raise HypervisorError(f"there is no network card slot {nic.slot}")
    await _add_backend(domain, nic)
    try:
        await domain.monitor.command("device_add", devices.nic_device(nic))
    except BaseException:
        await asyncio.shield(domain.monitor.execute("netdev_del", id=names.nic_backend(nic.slot)))
        raise


async def unplug_nic(domain: Domain, slot: int, timeout: float, *, force: bool) -> None:
    """Take a network card out. With `force` a guest that will not part with it keeps a card without a link."""
    try:
        await _delete_device(domain, names.nic(slot), FORCED_SECONDS if force else timeout)
    except GuestNotRespondingError:
        if not force:
            raise
        await domain.monitor.execute("set_link", name=names.nic(slot), up=False)
    await domain.monitor.execute("netdev_del", id=names.nic_backend(slot))


async def _add_backend(domain: Domain, nic: NicSpec) -> None:
    if not isinstance(nic.backend, TapBackend):
        if domain.handle.uid is not None:
            domain.files.give_resolver(RESOLVER)
        await domain.monitor.command("netdev_add", devices.user_backend(nic.slot))
        return
    name = names.nic_backend(nic.slot)
    fd = open_tap(nic.backend.interface)
    try:
        await domain.monitor.with_descriptor(fd, "getfd", fdname=name)
    finally:
        os.close(fd)
    try:
        await domain.monitor.command("netdev_add", devices.tap_backend(nic.slot, name))
    except CommandRefusedError:
        await _quietly(domain, "closefd", fdname=name)
        raise


async def _delete_device(domain: Domain, device: str, timeout: float) -> None:
    """Ask the guest for a device and wait until it is gone. Raises `GuestNotRespondingError`."""

    def answers(name: str, data: Mapping[str, Any]) -> bool:
        return name in ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") and data.get("device") == device

    async with domain.expect(answers) as answer:
        try:
            await domain.monitor.execute("device_del", id=device)
        except CommandRefusedError as error:
            if "unplug" not in str(error):  # an unplug that was asked for before is still pending: wait for it
                raise
        try:
            name, _ = await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise GuestNotRespondingError(f"the guest did not let go of {device} in {timeout:g} seconds") from None
    if name != "DEVICE_DELETED":
        raise GuestNotRespondingError(f"the guest refused to let go of {device}")


async def _hollow_out(domain: Domain, slot: int) -> None:
    """Put nothing in the place of a disk's content: reads fail from now on, and QEMU lets go of the files.

    QEMU cannot take a node from a device that uses it, but at the end of a mirror it moves the device to another node.
    """
    device = names.disk(slot)
    current = await _medium(domain, device)
    if current is None:
        return
    size = await _virtual_size(domain, current)
    node = f"{names.VOID_PREFIX}{slot}-{domain.next_set}"
    domain.next_set += 1
    faulty = {"event": "none", "iotype": "read", "errno": 5, "immediately": True}
    empty = {"driver": "null-co", "size": size}
    await domain.monitor.command(
        "blockdev-add", {"driver": "blkdebug", "node-name": node, "image": empty, "inject-error": [faulty]}
    )

    def is_job(event: str) -> Any:
        return lambda name, data: name == event and data.get("device") == node

    async with domain.expect(is_job("BLOCK_JOB_READY")) as ready:
        await domain.monitor.execute("blockdev-mirror", job_id=node, device=current, target=node, sync="none")
        await ready
    async with domain.expect(is_job("BLOCK_JOB_COMPLETED")) as completed:
        await domain.monitor.execute("block-job-complete", device=node)
        await completed


async def _add_image(domain: Domain, slot: int, source: DiskSource, image_tool: str, *, writable: bool) -> str:
    chain = await backing_chain(source, image_tool)
    first_set = domain.next_set
    node = _take_name(domain, slot, len(chain))
    await _send_image(domain, open_image(chain, node, first_set, writable=writable))
    return node


def _take_name(domain: Domain, slot: int, sets: int) -> str:
    """A node name never used before, and as many descriptor set numbers from `next_set` on."""
    first = domain.next_set
    domain.next_set += sets
    return names.image(slot, first)


async def _send_image(domain: Domain, image: OpenedImage) -> None:
    """Hand over an image's descriptors and make its block node; the image is closed here in any case."""
    try:
        for descriptor in image.descriptors:
            await domain.monitor.with_descriptor(
                descriptor.fd, "add-fd", fdset_id=descriptor.set, opaque=descriptor.opaque
            )
        await domain.monitor.command("blockdev-add", image.blockdev)
    except BaseException:
        await asyncio.shield(_remove_descriptors(domain, image.node))
        raise
    finally:
        image.close()


async def _medium(domain: Domain, device: str) -> str | None:
    """The block node a device uses now, None for an empty drive. Raises `HypervisorError` where there is no device."""
    for block in await domain.monitor.execute("query-block"):
        if f"/{block.get('qdev', '')}/".find(f"/{device}/") >= 0:
            inserted = block.get("inserted")
            return None if inserted is None else str(inserted["node-name"])
    raise HypervisorError(f"there is no device {device}")


async def _virtual_size(domain: Domain, node: str) -> int:
    for block in await domain.monitor.execute("query-named-block-nodes", flat=True):
        if block["node-name"] == node:
            return int(block["image"]["virtual-size"])
    raise HypervisorError(f"there is no block node {node}")


async def _remove_images(domain: Domain, slot: int) -> None:
    """Delete every node made for a slot, the newest (topmost) first."""
    prefix = names.image_prefix(slot)
    found = await domain.monitor.execute("query-named-block-nodes", flat=True)
    nodes = [node["node-name"] for node in found if node["node-name"].startswith(prefix)]
    for node in sorted(nodes, key=lambda name: int(name.removeprefix(prefix)), reverse=True):
        await _remove_image(domain, node)


async def _remove_image(domain: Domain, node: str) -> None:
    await domain.monitor.execute("blockdev-del", node_name=node)
    await _remove_descriptors(domain, node)


async def _remove_descriptors(domain: Domain, node: str) -> None:
    for found in await domain.monitor.execute("query-fdsets"):
        if any(descriptor.get("opaque") == node for descriptor in found["fds"]):
            await _quietly(domain, "remove-fd", fdset_id=found["fdset-id"])


async def _quietly(domain: Domain, command: str, **arguments: object) -> None:
    """A command whose refusal only says that there was nothing to do."""
    try:
        await domain.monitor.execute(command, **arguments)
    except CommandRefusedError:
        return
