"""Which of the host's processors a domain's own run on, and how often."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import pytest

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.scheduling import LEAST_NICE, NICEST, niceness
from domzero.host.hypervisor.spec import KernelBoot, Scheduling
from tests.host.qemu.conftest import Guest, Machine, guest_spec

ALL = frozenset(os.sched_getaffinity(0))
ONE = frozenset({max(ALL)})
USUAL = os.getpriority(os.PRIO_PROCESS, 0)
LESS, MORE = niceness(128, USUAL), niceness(512, USUAL)


def test_shares_as_nice_values() -> None:
    found: Mapping[int, int] = {weight: niceness(weight, 0) for weight in (1, 128, 256, 512, 65535)}
    assert found == {1: NICEST, 128: 3, 256: 0, 512: -3, 65535: LEAST_NICE}
    assert (niceness(256, 5), niceness(128, 18)) == (5, NICEST)


async def scheduled(machine: Machine, domid: int) -> set[tuple[frozenset[int], int]]:
    """Where the domain's processors run, and how nice they are."""
    processors = await machine.hypervisor._domains[domid].monitor.execute("query-cpus-fast")
    threads = [processor["thread-id"] for processor in processors]
    return {(frozenset(os.sched_getaffinity(it)), os.getpriority(os.PRIO_PROCESS, it)) for it in threads}


@pytest.mark.qemu
async def test_a_running_guest(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    assert await scheduled(machine, domid) == {(ALL, USUAL)}
    await hypervisor.schedule(domid, Scheduling(128, ONE))
    assert await scheduled(machine, domid) == {(ONE, LESS)}
    await hypervisor.set_vcpus(domid, 2)  # a new thread
    assert await scheduled(machine, domid) == {(ONE, LESS)}
    with pytest.raises(HypervisorError):
        await hypervisor.schedule(domid, Scheduling(64, frozenset({4000})))
    assert await scheduled(machine, domid) == {(ONE, LESS)}
    assert os.getpriority(os.PRIO_PROCESS, machine.hypervisor._domains[domid].pid) == USUAL
    if os.geteuid() == 0:  # others may be made nicer, not less so
        await hypervisor.schedule(domid, Scheduling(512))
        assert await scheduled(machine, domid) == {(ALL, MORE)}
        await hypervisor.schedule(domid, Scheduling())
        assert await scheduled(machine, domid) == {(ALL, USUAL)}


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("asked", "found"), [(Scheduling(128, ONE), (ONE, LESS)), (Scheduling(128, frozenset({4000})), (ALL, USUAL))]
)
async def test_from_the_start(
    machine: Machine, boot: KernelBoot, asked: Scheduling, found: tuple[frozenset[int], int]
) -> None:
    """A host that cannot do what is asked runs the machine all the same."""
    spec = replace(guest_spec(boot, machine.image("disk", "16M")), scheduling=asked)
    await machine.hypervisor.start(spec, paused=True)
    assert await scheduled(machine, spec.domid) == {found}
