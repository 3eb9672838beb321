"""How much a guest has and uses: memory, processors, counters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domzero.host.hypervisor.protocol import (
    DiskCounters,
    DomainStatistics,
    GuestNotRespondingError,
    HypervisorError,
    RequestCounters,
)
from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.process import thread_use
from domzero.host.hypervisor.qemu.scheduling import spread

QOM_DISK = re.compile(r"(?:/machine/peripheral/)?disk-(\d+)(?:/|$)")


async def set_memory_target(domain: Domain, target: int) -> None:
    """Ask the guest's balloon for `target` bytes; QEMU takes no more than the machine has."""
    await domain.monitor.execute("balloon", value=target)


async def statistics(domain: Domain) -> DomainStatistics:
    """Counters of processors, memory and disks."""
    processors, memory, disks = await asyncio.gather(
        domain.monitor.execute("query-cpus-fast"),
        domain.monitor.execute("query-balloon"),
        domain.monitor.execute("query-blockstats"),
    )
    threads = [processor["thread-id"] for processor in sorted(processors, key=lambda found: found["cpu-index"])]
    uses = [thread_use(domain.pid, thread) for thread in threads]
    return DomainStatistics(
        cpu_seconds=tuple(use.seconds for use in uses),
        memory_actual=memory["actual"],
        disks=disk_counters(disks),
        cpu_numbers=tuple(use.processor for use in uses),
    )


def disk_counters(blockstats: list[dict[str, Any]]) -> dict[int, DiskCounters]:
    """The counters by slot, from QEMU's answer to `query-blockstats`.

    A disk that was taken out by force, so that only a hollow device is left, has none.
    """
    counters = {}
    for entry in blockstats:
        found = QOM_DISK.match(entry.get("qdev", ""))
        if found and not entry.get("node-name", "").startswith(names.VOID_PREFIX):
            stats = entry["stats"]
            counters[int(found[1])] = DiskCounters(stats["rd_bytes"], stats["wr_bytes"], request_counters(stats))
    return counters


def request_counters(stats: Mapping[str, Any]) -> RequestCounters:
    """Requests and their time, from one disk's `stats` (QEMU's BlockDeviceStats)."""
    return RequestCounters(
        stats["rd_operations"],
        stats["wr_operations"],
        stats["rd_total_time_ns"] / 1e9,
        stats["wr_total_time_ns"] / 1e9,
    )


async def set_vcpus(domain: Domain, count: int, timeout: float) -> None:
    """Plug or unplug processors, lowest first in, highest first out.

    Raises `GuestNotRespondingError` when the guest keeps one it should give back, `HypervisorError` when the machine
    cannot have that many.
    """
    sockets = await processor_sockets(domain)
    if not 1 <= count <= len(sockets):
        raise HypervisorError(f"the machine can have 1 to {len(sockets)} processors, not {count}")
    plugged = [socket for socket in sockets if "qom-path" in socket]
    empty = [socket for socket in sockets if "qom-path" not in socket]
    for socket in empty[: max(0, count - len(plugged))]:
        await _plug(domain, socket, len(sockets))
    if count > len(plugged):
        await spread(domain)
    for socket in reversed(plugged[count:]):
        await _unplug(domain, socket["qom-path"], timeout)


async def processor_sockets(domain: Domain) -> list[dict[str, Any]]:
    """Every place for a processor, taken (with a `qom-path`) or not, in the order in which they are filled."""
    found: list[dict[str, Any]] = await domain.monitor.execute("query-hotpluggable-cpus")
    return sorted(found, key=lambda socket: tuple(sorted(socket["props"].items(), reverse=True)))


async def _plug(domain: Domain, socket: Mapping[str, Any], places: int) -> None:
    """Put a processor into an empty place.

    TCG has room for as many processor threads as there are places and takes none back from a processor that was
    unplugged; asked for one too many, QEMU aborts (tcg_register_thread). So a place can be filled once.
    """
    handle = domain.handle
    if handle.accelerator == "tcg" and handle.processors_started >= places:
        raise HypervisorError("under TCG a processor that was unplugged cannot be plugged again in the same boot")
    await domain.monitor.command("device_add", {"driver": socket["type"], **socket["props"]})
    domain.remember(replace(handle, processors_started=handle.processors_started + 1))


async def _unplug(domain: Domain, path: str, timeout: float) -> None:
    """Take one processor out.

    QEMU 7.2 announces (DEVICE_DELETED) the parts of a TCG processor that went and not the processor itself, which a
    stray reference keeps in memory; its part is enough.
    """
    async with domain.expect(lambda name, data: went(path, name, data)) as deleted:
        await domain.monitor.execute("device_del", id=path)
        try:
            async with asyncio.timeout(timeout):
                await deleted
        except TimeoutError:
            raise GuestNotRespondingError(f"the guest kept a processor for {timeout:g} seconds") from None


def went(path: str, name: str, data: Mapping[str, Any]) -> bool:
    """Whether an event says that the device at a QOM path, or a part of it, is gone."""
    return name == "DEVICE_DELETED" and f"{data.get('path')}/".startswith(f"{path}/")
