"""Cores of real guests, read by `readelf`, and by looking for what a guest had in its memory."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import (
    DomainNotFoundError,
    DomainStateChanged,
    HypervisorError,
    RunState,
    StopReason,
)
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.dumping import Sink
from domzero.host.hypervisor.spec import KernelBoot
from tests.host.qemu.conftest import MIB, Guest, Machine, guest_spec
from tests.host.qemu.guest import Console, until

pytestmark = pytest.mark.qemu

LIMIT = 512 * MIB
CRASH = "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger"


def empty(path: Path) -> Path:
    path.touch()
    return path


def check(core: Path, *words: bytes) -> None:
    said = subprocess.run(["readelf", "-h", "-l", "-n", core], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert "CORE (Core file)" in said.stdout
    assert "NT_PRSTATUS" in said.stdout
    assert said.stdout.count("LOAD") >= 1
    content = core.read_bytes()
    assert len(content) >= 127 * MIB
    for word in words:
        assert word in content
    # The guest has hardly used its memory.
    assert core.stat().st_blocks * 512 < len(content)


async def test_a_guest_that_panicked_is_dumped(machine: Machine, boot: KernelBoot, tmp_path: Path) -> None:
    spec = guest_spec(boot, machine.image("disk", "16M"))
    status = await machine.hypervisor.start(spec)
    await machine.hypervisor.keep_crashed(spec.domid, keep=True)
    assert status.serial_socket is not None
    async with Console(status.serial_socket) as console:
        await console.expect("GUEST UP", 60)
        await console.run("echo needle-$((1234567*7)) > /haystack")
        console.send(CRASH)
        await until(lambda: crashed(machine, spec.domid))
    assert machine.events.of(spec.domid) == [DomainStateChanged(spec.domid, RunState.CRASHED)]
    core, told = empty(tmp_path / "core"), list[float]()
    await machine.hypervisor.dump_core(spec.domid, core, LIMIT, told.append)
    assert told[-1] == 1.0
    assert told == sorted(told)
    check(core, b"needle-8641969", b"sysrq triggered crash")
    # A later daemon knows it too.
    await machine.hypervisor.close()
    machine.hypervisor = machine.driver()
    (found,) = await machine.hypervisor.open(machine.events)
    assert found.state is RunState.CRASHED
    await machine.hypervisor.destroy(spec.domid)
    assert (await machine.events.stopped(spec.domid)).reason is StopReason.DESTROYED


async def crashed(machine: Machine, domid: int) -> bool:
    return (await machine.hypervisor.status(domid)).state is RunState.CRASHED


async def test_a_guest_that_runs_is_dumped_and_goes_on(machine: Machine, guest: Guest, tmp_path: Path) -> None:
    before = await guest.console.count()
    core = empty(tmp_path / "core")
    await machine.hypervisor.dump_core(guest.domid, core, LIMIT, lambda _: None)
    check(core)
    assert await guest.console.count() >= before
    assert machine.events.of(guest.domid) == []


class Held:
    """Dumps that stop after their first piece, which is never the whole of a core, until they may go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 60)


@contextmanager
def held() -> Iterator[Held]:
    dump, drain = Held(), Sink.drain

    def drain_and_wait(sink: Sink) -> None:
        drain(sink)
        dump.begun.set()
        assert dump.go_on.wait(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sink, "drain", drain_and_wait)
        try:
            yield dump
        finally:
            dump.go_on.set()


async def test_what_goes_wrong_ends_the_dump_and_nothing_else(machine: Machine, guest: Guest, tmp_path: Path) -> None:
    hypervisor = machine.hypervisor
    core = empty(tmp_path / "core")
    with pytest.raises(HypervisorError, match="more than"):
        await hypervisor.dump_core(guest.domid, core, MIB, lambda _: None)
    with pytest.raises(HypervisorError, match="No such file"):
        await hypervisor.dump_core(guest.domid, tmp_path / "none", LIMIT, lambda _: None)
    with pytest.raises(HypervisorError, match="No space"):
        await hypervisor.dump_core(guest.domid, Path("/dev/full"), LIMIT, lambda _: None)
    with pytest.raises(DomainNotFoundError):
        await hypervisor.dump_core(999_999, core, LIMIT, lambda _: None)
    with held() as dump:
        dumping = asyncio.create_task(hypervisor.dump_core(guest.domid, core, LIMIT, lambda _: None))
        await dump.until_begun()
        dumping.cancel()
        dump.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await dumping
    await guest.console.run("true")
    await hypervisor.dump_core(guest.domid, core, LIMIT, lambda _: None)
    check(core)


async def test_a_domain_that_ends_while_it_is_dumped(machine: Machine, guest: Guest, tmp_path: Path) -> None:
    core = empty(tmp_path / "core")
    with held() as dump:
        dumping = asyncio.create_task(machine.hypervisor.dump_core(guest.domid, core, LIMIT, lambda _: None))
        await dump.until_begun()
        domain: Domain = machine.hypervisor._find(guest.domid)
        await machine.hypervisor.destroy(guest.domid)
        assert domain.domid == guest.domid
        dump.go_on.set()
        with pytest.raises(HypervisorError):
            await dumping
