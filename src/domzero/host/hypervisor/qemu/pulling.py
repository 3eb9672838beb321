"""Fewer layers below a running guest: one takes over what it reads from those between it and another (block-stream).

The job runs inside QEMU and holds no lock of the domain. Whatever else changes the chain of the same slot, or writes
the whole domain down, ends it first: what it copied stays in the upper layer, where it changes nothing that is read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu import names, places, slots
from domzero.host.hypervisor.qemu.domain import Domain, EventTest
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError
from domzero.host.hypervisor.qemu.slots import Layer
from domzero.host.hypervisor.spec import LayerPull

REPORT_SECONDS = 0.5
"""How often progress is looked at; the end is announced by QEMU."""
CANCEL_SECONDS = 30.0
"""How long a job may take to notice that it is cancelled: it finishes what it is reading or writing."""
ENDED = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")

Progress = Callable[[float], None]


async def pull_layer(domain: Domain, slot: int, pull: LayerPull, progress: Progress) -> None:
    """Carry out a pull and let go of the layers that vanished. The caller does not hold the domain's lock.

    Raises `HypervisorError`, also where another verb ended it; the disk's content is the same in any case.
    """
    job = names.pull(slot, slots.take(domain))
    async with domain.expect(_ended(job)) as ended:
        try:
            async with domain.lock:
                upper = await _start(domain, slot, job, pull)
            name, data = await _follow(domain, job, ended, progress)
        except asyncio.CancelledError:
            await asyncio.shield(_cancel(domain, job, ended))
            raise
        finally:
            await asyncio.shield(_tidy(domain, slot))
    if name == "BLOCK_JOB_CANCELLED":
        raise HypervisorError(f"the merge of layers of disk {slot} was stopped for something more urgent")
    if "error" in data:
        raise HypervisorError(f"the merge of layers of disk {slot} failed: {data['error']}")
    if not upper.read_only:
        # QEMU names the new layer below before what it copied is on the medium; from here on a crash loses nothing.
        await domain.monitor.execute("human-monitor-command", command_line=f"qemu-io {upper.node} flush")
    progress(1.0)


async def end_pulls(domain: Domain, slot: int | None) -> None:
    """Cancel the pulls of a slot (of every slot: None), and wait until QEMU has let go. The caller holds the lock."""
    for job in await domain.monitor.execute("query-block-jobs"):
        place = names.parse(job["device"])
        if place is not None and place[0] == "pull" and slot in (None, place[1]):
            await end_job(domain, job["device"])


async def end_job(domain: Domain, job: str) -> None:
    """Cancel a block job and wait for its end; one that is over is no error."""
    async with domain.expect(_ended(job)) as ended:
        await _cancel(domain, job, ended)


async def _start(domain: Domain, slot: int, job: str, pull: LayerPull) -> Layer:
    """Begin the job; the layer that it fills. Raises `HypervisorError`."""
    if await slots.medium(domain, slot) is None:
        raise HypervisorError(f"the drive in slot {slot} is empty")
    running = await domain.monitor.execute("query-block-jobs")
    if any((place := names.parse(other["device"])) and place[:2] == ("pull", slot) for other in running):
        raise HypervisorError(f"layers of disk {slot} are being merged already")
    layers = (await slots.holdings(domain)).layers(slot)
    upper = _find(layers, pull.upper, slot)
    arguments: dict[str, object] = {"job-id": job, "device": upper.node, "speed": pull.speed}
    if (pull.below is None) != (pull.backing_name is None):
        raise HypervisorError(f"{pull.upper}: a layer below and a name for it come together")
    if pull.below is not None:
        arguments |= {"base-node": _find(layers, pull.below, slot).node, "backing-file": pull.backing_name}
    if upper.read_only:
        await _reopening(domain, slot, upper, pull.upper, arguments)
    else:
        await domain.monitor.command("block-stream", arguments)
    return upper


def _find(layers: list[Layer], path: Path, slot: int) -> Layer:
    """The layer that a file is. Raises `HypervisorError` where the disk has no such layer."""
    identity = places.identity_of(path)
    for layer in layers:
        if layer.identity == identity:
            return layer
    raise HypervisorError(f"{path} is no layer of disk {slot}")


async def _reopening(domain: Domain, slot: int, layer: Layer, path: Path, arguments: dict[str, object]) -> None:
    """Begin a job for which QEMU reopens a layer's file for writing, and after it for reading again.

    The one that QEMU leaves must not be in the set any more, or QEMU meets its own lock (`slots.forbid_writing`).
    """
    if domain.state is not RunState.RUNNING:
        raise HypervisorError(f"layers of disk {slot} cannot be merged while the domain is paused")
    with ExitStack() as closing:
        numbers: list[int] = []
        for writable in (True, False):
            opened = places.open_file(path, slot, layer.number, writable=writable)
            closing.callback(os.close, opened.fd)
            if opened.label.identity != layer.identity:
                raise HypervisorError(f"{path} is another file by now")
            numbers.append(await slots.add_descriptor(domain, opened))
    try:
        for old in layer.descriptors:
            await slots.remove_descriptors(domain, fdset_id=layer.number, fd=old)
        await domain.monitor.command("block-stream", arguments)
    finally:
        await asyncio.shield(slots.remove_descriptors(domain, fdset_id=layer.number, fd=numbers[0]))


async def _follow(
    domain: Domain, job: str, ended: asyncio.Future[tuple[str, Mapping[str, Any]]], progress: Progress
) -> tuple[str, Mapping[str, Any]]:
    """Report until the job is over, and return the event that says so."""
    while not ended.done():
        await asyncio.wait({ended}, timeout=REPORT_SECONDS)
        if not ended.done():
            for found in await domain.monitor.execute("query-block-jobs"):
                if found["device"] == job and found["len"] > 0:
                    progress(min(1.0, found["offset"] / found["len"]))
    return ended.result()


async def _cancel(domain: Domain, job: str, ended: asyncio.Future[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises `HypervisorError` for a job that goes on."""
    try:
        await domain.monitor.execute("block-job-cancel", device=job, force=True)
    except CommandRefusedError:
        return  # there is no such job (any more)
    await asyncio.wait({ended}, timeout=CANCEL_SECONDS)
    if not ended.done():
        raise HypervisorError(f"a merge of layers ({job}) does not end: its storage does not answer")
    ended.result()


async def _tidy(domain: Domain, slot: int) -> None:
    async with domain.lock:
        await slots.let_go(domain, slot)


def _ended(job: str) -> EventTest:
    return lambda name, data: name in ENDED and data.get("device") == job
