"""Finding again what an earlier daemon left: living domains are taken over, everything else is ended and removed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu import names, pulling, resizing, slots
from domzero.host.hypervisor.qemu.arguments import vnc_address
from domzero.host.hypervisor.qemu.domain import CRASHED_STATES, LOST_STATES, RUNNING_STATES, Domain
from domzero.host.hypervisor.qemu.files import DomainFiles, Handle
from domzero.host.hypervisor.qemu.process import WatchedProcess, boot_id, find_by_argument, start_time

log = logging.getLogger(__name__)


async def adopt(domain: Domain, boot: str, timeout: float) -> bool:
    """Take over the domain its handle names. False when it is gone, was never run, or answers no more: see `clear`."""
    handle = domain.handle
    if handle.boot_id != boot or not handle.live or handle.pid is None:
        return False
    try:
        domain.watch(handle.pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(handle.pid) != handle.start_time:
            raise HypervisorError("its process is gone and the number is another's")
        await domain.connect(timeout)
        run_state = (await domain.monitor.execute("query-status"))["status"]
        if run_state in LOST_STATES:
            raise HypervisorError(f"its guest is lost ({run_state})")
        running = run_state in RUNNING_STATES or handle.held
        crashed = run_state in CRASHED_STATES
        domain.state = RunState.CRASHED if crashed else RunState.RUNNING if running else RunState.PAUSED
        await tidy(domain)
    except HypervisorError as error:
        log.warning("domain %s is not taken over: %s", domain.domid, error)
        await domain.release()
        return False
    return True


async def tidy(domain: Domain) -> None:
    """End what the earlier daemon had begun, and let go of what it held for that.

    Something that cannot be ended is logged: that is no reason to lose the guest. Raises `HypervisorError` only where
    QEMU does not even say what there is.
    """
    found = await slots.holdings(domain)
    jobs = [job["device"] for job in await domain.monitor.execute("query-block-jobs")]
    used = [entry["fdset-id"] for entry in found.sets]
    domain.next_number = 1 + highest_number(used, [*(node["node-name"] for node in found.nodes), *jobs])
    steps: list[Callable[[Domain], Awaitable[None]]] = [partial(pulling.end_job, job=job) for job in jobs]
    for step in (*steps, resizing.recover, _let_go):
        try:
            await step(domain)
        except HypervisorError as error:
            log.warning("domain %s keeps something of an earlier daemon: %s", domain.domid, error)


async def _let_go(domain: Domain) -> None:
    for entry in await domain.monitor.execute("qom-list", path="/objects"):
        if (place := names.parse(entry["name"])) is not None and place[0] == "secret":
            await slots.quietly(domain, "object-del", id=entry["name"])
    await slots.let_go(domain, None)


def highest_number(used: list[int], named: list[str]) -> int:
    """The highest number that is a descriptor set's or part of a name."""
    return max([*used, *(place[2] for name in named if (place := names.parse(name)))], default=0)


async def clear(files: DomainFiles) -> None:
    """End the process that belongs to a directory, if there is one, and remove the directory."""
    pid = _process_of(files, files.read_handle())
    if pid is not None:
        try:
            process = WatchedProcess.watch(pid, lambda: None)
        except ProcessLookupError:
            process = None
        if process is not None and _process_of(files, files.read_handle()) == pid:
            process.kill()
            await process.wait()
        elif process is not None:
            process.release()
    files.remove()


def _process_of(files: DomainFiles, handle: Handle | None) -> int | None:
    """The directory's process. A daemon that died between starting it and writing it down left only its arguments."""
    if handle is not None and handle.boot_id != boot_id():
        return None
    if handle is not None and handle.pid is not None:
        return handle.pid if start_time(handle.pid) == handle.start_time else None
    return find_by_argument(vnc_address(files))
