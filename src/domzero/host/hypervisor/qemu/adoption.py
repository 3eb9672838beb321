"""Finding again what an earlier daemon left: living domains are taken over, everything else is ended and removed."""

from __future__ import annotations

import logging
import re

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu.arguments import vnc_address
from domzero.host.hypervisor.qemu.domain import LOST_STATES, RUNNING_STATES, Domain
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
        domain.state = RunState.RUNNING if run_state in RUNNING_STATES else RunState.PAUSED
        sets = await domain.monitor.execute("query-fdsets")
        nodes = await domain.monitor.execute("query-named-block-nodes", flat=True)
        domain.next_set = 1 + highest_set([item["fdset-id"] for item in sets], [node["node-name"] for node in nodes])
    except HypervisorError as error:
        log.warning("domain %s is not taken over: %s", domain.domid, error)
        await domain.release()
        return False
    return True


def highest_set(sets: list[int], nodes: list[str]) -> int:
    """The highest descriptor set number that is in use or part of a block node's name."""
    named = [int(found[1]) for node in nodes if (found := re.fullmatch(r"image-\d+-(\d+)", node))]
    return max([*sets, *named], default=0)


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
