"""Disks, media and network cards of a running domain.

What is promised of a disk or card that was plugged into a running guest: a driver in the guest has taken it. Of a CD
drive, whose controller was there before: the guest was told. What is unplugged the guest has let go of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from domzero.host.hypervisor.protocol import GuestNotRespondingError, HypervisorError
from domzero.host.hypervisor.qemu import devices, limits, names, slots
from domzero.host.hypervisor.qemu.acknowledgement import wait_for_driver
from domzero.host.hypervisor.qemu.complaints import explained
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.images import open_image, prepared_chain
from domzero.host.hypervisor.qemu.launch import RESOLVER, is_writable, open_tap
from domzero.host.hypervisor.qemu.modules import provide
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError
from domzero.host.hypervisor.qemu.pulling import end_pulls
from domzero.host.hypervisor.qemu.remote import answers, servers_of
from domzero.host.hypervisor.spec import DiskKind, DiskSource, DiskSpec, NicSpec, TapBackend

FORCED_SECONDS = 2.0
"""How long a guest is given when the caller will not take no for an answer."""


async def prepare(domain: Domain, source: DiskSource | None, image_tool: str) -> tuple[DiskSource, ...]:
    """The layers of what is about to be plugged, seen to be there; none for an empty drive. Raises `HypervisorError`.

    May take as long as servers are given to answer, so the caller does not hold the domain's lock.
    """
    if source is None:
        return ()
    chain = await prepared_chain(source, image_tool)
    await provide(domain, chain)
    return chain


async def plug_disk(domain: Domain, disk: DiskSpec, chain: tuple[DiskSource, ...], patience: float) -> None:
    """Add a disk or CD drive. Raises `HypervisorError`, and nothing of it is left in QEMU.

    Raises `GuestNotRespondingError` when the guest has not taken a disk in `patience` seconds. If it will not part with
    the disk either, it keeps a device without content.
    """
    if disk.slot not in names.DISK_SLOTS:
        raise HypervisorError(f"there is no disk slot {disk.slot}")
    limits.check(disk.limits)
    node = await _add_image(domain, disk.slot, chain, writable=is_writable(disk)) if chain else None
    try:
        await _add(
            domain,
            "device_add",
            devices.disk_device(disk, node, queues=domain.handle.queues),
            f"a disk in slot {disk.slot}",
        )
    except BaseException:
        await asyncio.shield(slots.let_go(domain, disk.slot))
        raise
    try:
        await limits.set_all(domain, [disk])
        if disk.kind is DiskKind.DISK:
            await wait_for_driver(domain, names.disk(disk.slot), f"the disk in slot {disk.slot}", patience)
    except (HypervisorError, asyncio.CancelledError):
        await asyncio.shield(unplug_disk(domain, disk.slot, FORCED_SECONDS, force=True))
        raise


async def unplug_disk(domain: Domain, slot: int, timeout: float, *, force: bool) -> None:
    """Take a disk out and let go of its files.

    With `force` a guest that will not part with it keeps a device that answers reads with errors; the files are free.
    That cannot be while a remote image's server is gone. Raises `GuestNotRespondingError` without `force`, and
    `HypervisorError`.
    """
    await end_pulls(domain, slot)
    try:
        await _delete_device(domain, names.disk(slot), f"the disk in slot {slot}", FORCED_SECONDS if force else timeout)
    except GuestNotRespondingError:
        if not force:
            raise
        await _check_servers(domain, slot)
        await _hollow_out(domain, slot)
    kept = [node for node in await slots.let_go(domain, slot) if node.startswith("image-")]
    if kept:
        raise HypervisorError(f"the disk in slot {slot} is out, but QEMU still uses its image ({', '.join(kept)})")
    limits.forget(domain, slot)


async def change_medium(domain: Domain, slot: int, chain: tuple[DiskSource, ...]) -> None:
    """Swap the disc in a CD drive, even if the guest locked its door. A failure may leave the drive empty."""
    device = names.disk(slot)
    old = await slots.medium(domain, slot)
    new = await _add_image(domain, slot, chain, writable=False) if chain else None
    try:
        await domain.monitor.execute("blockdev-open-tray", id=device, force=True)
        if old is not None:
            await domain.monitor.execute("blockdev-remove-medium", id=device)
        if new is not None:
            await domain.monitor.execute("blockdev-insert-medium", id=device, node_name=new)
        await domain.monitor.execute("blockdev-close-tray", id=device)
    finally:
        await asyncio.shield(slots.let_go(domain, slot))
    await limits.renew(domain, slot)


async def switch_disk(domain: Domain, slot: int, chain: tuple[DiskSource, ...]) -> None:
    """Put an empty overlay (see `prepare`) on top of a disk's content; the guest notices nothing."""
    current = await slots.filled(domain, slot)
    await end_pulls(domain, slot)
    overlay = open_image(chain[:1], slot, slots.take(domain), writable=True)
    await slots.send(domain, slot, overlay)
    try:
        for layer in (await slots.holdings(domain)).layers(slot):
            if layer.node == current:  # QEMU reopens it for reading only
                await slots.forbid_writing(domain, layer)
        await domain.monitor.execute("blockdev-snapshot", node=current, overlay=overlay.node)
    finally:
        await asyncio.shield(slots.let_go(domain, slot))


async def plug_nic(domain: Domain, nic: NicSpec, patience: float) -> None:
    """Add a network card. On failure nothing of it is left in QEMU; errors as `plug_disk`'s."""
    if nic.slot not in names.NIC_SLOTS:
        raise HypervisorError(f"there is no network card slot {nic.slot}")
    await _add_backend(domain, nic)
    try:
        await _add(domain, "device_add", devices.nic_device(nic), f"a network card {nic.slot}")
    except BaseException:
        await asyncio.shield(domain.monitor.execute("netdev_del", id=names.nic_backend(nic.slot)))
        raise
    try:
        await wait_for_driver(domain, names.nic(nic.slot), f"network card {nic.slot}", patience)
    except (HypervisorError, asyncio.CancelledError):
        await asyncio.shield(unplug_nic(domain, nic.slot, FORCED_SECONDS, force=True))
        raise


async def unplug_nic(domain: Domain, slot: int, timeout: float, *, force: bool) -> None:
    """Take a network card out. With `force` a guest that will not part with it keeps a card without a link."""
    try:
        await _delete_device(domain, names.nic(slot), f"network card {slot}", FORCED_SECONDS if force else timeout)
    except GuestNotRespondingError:
        if not force:
            raise
        await domain.monitor.execute("set_link", name=names.nic(slot), up=False)
    await domain.monitor.execute("netdev_del", id=names.nic_backend(slot))


async def _add_backend(domain: Domain, nic: NicSpec) -> None:
    if not isinstance(nic.backend, TapBackend):
        if domain.handle.uid is not None:
            domain.files.give_resolver(RESOLVER)
        await _add(domain, "netdev_add", devices.user_backend(nic.slot), f"a network card {nic.slot}")
        return
    name = names.nic_backend(nic.slot)
    fd = open_tap(nic.backend)
    try:
        await domain.monitor.with_descriptor(fd, "getfd", fdname=name)
    finally:
        os.close(fd)
    try:
        await _add(domain, "netdev_add", devices.tap_backend(nic.slot, name), f"a network card {nic.slot}")
    except HypervisorError:
        await slots.quietly(domain, "closefd", fdname=name)
        raise


async def _add(domain: Domain, command: str, device: devices.Device, what: str) -> None:
    """Plug a device or what stands behind it. Raises `HypervisorError`."""
    try:
        await domain.monitor.command(command, device)
    except CommandRefusedError as error:
        if "Duplicate" in str(error):
            raise HypervisorError(f"the domain has {what} already") from error
        raise HypervisorError(f"{what} cannot be plugged: {explained(str(error))}") from error


async def _delete_device(domain: Domain, device: str, what: str, timeout: float) -> None:
    """Ask the guest for a device and wait until it is gone. Raises `GuestNotRespondingError`."""

    def answers(name: str, data: Mapping[str, Any]) -> bool:
        return name in ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") and data.get("device") == device

    async with domain.expect(answers) as answer:
        try:
            await domain.monitor.execute("device_del", id=device)
        except CommandRefusedError as error:
            if "not found" in str(error):
                raise HypervisorError(f"the domain does not have {what}") from error
            if "unplug" not in str(error):  # an unplug that was asked for before is still pending: wait for it
                raise HypervisorError(f"{what} cannot be unplugged: {explained(str(error))}") from error
        try:
            # Not `wait_for`: it loses a cancellation that comes together with the answer (CPython issue 86296).
            async with asyncio.timeout(timeout):
                name, _ = await answer
        except TimeoutError:
            raise GuestNotRespondingError(f"the guest did not let go of {what} in {timeout:g} seconds") from None
    if name != "DEVICE_DELETED":
        raise GuestNotRespondingError(f"the guest refused to let go of {what}")


async def _check_servers(domain: Domain, slot: int) -> None:
    """Raises `HypervisorError` where a disk's server is gone.

    Whatever takes a disk from its device waits for what the guest has asked of it, the whole of QEMU with it.
    """
    for node in (await slots.holdings(domain)).nodes:
        place = names.parse(node["node-name"])
        servers = servers_of(str(node["drv"]), str(node["file"]))
        if place is None or place[1] != slot or not servers:
            continue
        if not any([await answers(host, port) for host, port in servers]):
            where = " or ".join(f"{host} port {port}" for host, port in servers)
            raise HypervisorError(
                f"the disk in slot {slot} cannot be taken out by force: its server ({where}) does not answer, and "
                f"requests of the guest wait for it"
            )


async def _hollow_out(domain: Domain, slot: int) -> None:
    """Put nothing in the place of a disk's content: reads fail from now on, and QEMU lets go of the files.

    QEMU cannot take a node from a device that uses it, but at the end of a mirror it moves the device to another node.
    """
    current = await slots.medium(domain, slot)
    if current is None or current.startswith(names.VOID_PREFIX):
        return
    size = (await slots.holdings(domain)).size(current)
    node = names.void(slot, slots.take(domain))
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


async def _add_image(domain: Domain, slot: int, chain: tuple[DiskSource, ...], *, writable: bool) -> str:
    """Make the block node of an image and return its name. On failure nothing of it is left."""
    image = open_image(chain, slot, slots.take(domain, len(chain)), writable=writable)
    await slots.send(domain, slot, image)
    return image.node
