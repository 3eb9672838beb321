"""How the host's processors are shared out: on which of them a domain's virtual processors run, and how often.

The kernel keeps it with each thread, so nothing is written down and a daemon that adopts the domain need not know.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Collection, Iterable

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.spec import Scheduling

log = logging.getLogger(__name__)

STEP = 1.25
"""How much more of a busy processor a thread gets than one that is nicer by one (sched(7))."""
LEAST_NICE, NICEST = -10, 19
"""Beyond the least a busy guest would leave the daemon, and with it everybody else, no turn on a processor."""


def niceness(weight: int, usual: int) -> int:
    """The nice value with which a thread gets that share, where `usual` gives the usual one."""
    return max(LEAST_NICE, min(NICEST, usual + round(-math.log(weight / Scheduling().weight, STEP))))


async def schedule(domain: Domain, scheduling: Scheduling) -> None:
    """Have every virtual processor scheduled so. Raises `HypervisorError`; then they are as they were."""
    threads = await _threads(domain)
    before = _found(threads[0])
    try:
        nice = niceness(scheduling.weight, os.getpriority(os.PRIO_PROCESS, 0))
        _apply(threads, scheduling.processors or os.sched_getaffinity(0), nice)
    except OSError as error:
        if before is not None:
            with contextlib.suppress(OSError):
                _apply(threads, *before)
        raise HypervisorError(f"the host does not schedule domain {domain.domid} so: {error.strerror}") from error


async def schedule_at_start(domain: Domain, scheduling: Scheduling) -> None:
    """As `schedule`, but a machine starts all the same where the host cannot."""
    if scheduling == Scheduling():
        return
    try:
        await schedule(domain, scheduling)
    except HypervisorError as error:
        log.warning("domain %s runs on any processor, no more often than others: %s", domain.domid, error)


async def spread(domain: Domain) -> None:
    """Schedule virtual processors that were just plugged as the first one, which was there before."""
    threads = await _threads(domain)
    found = _found(threads[0])
    if found is not None:
        try:
            _apply(threads[1:], *found)
        except OSError as error:
            log.warning("new processors of domain %s run anywhere: %s", domain.domid, error)


async def _threads(domain: Domain) -> list[int]:
    processors = await domain.monitor.execute("query-cpus-fast")
    return [found["thread-id"] for found in sorted(processors, key=lambda processor: processor["cpu-index"])]


def _found(thread: int) -> tuple[Collection[int], int] | None:
    """As the kernel has it; None of a thread that is gone."""
    try:
        return os.sched_getaffinity(thread), os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:
        return None


def _apply(threads: Iterable[int], processors: Collection[int], nice: int) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, processors)
            if os.getpriority(os.PRIO_PROCESS, thread) != nice:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
