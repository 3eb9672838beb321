"""A real guest on a real QEMU, through the contract only."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import (
    DomainNotFoundError,
    DomainStateChanged,
    DomainStopped,
    HypervisorError,
    RunState,
    StopReason,
)
from domzero.host.hypervisor.qemu import files
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.driver import Limits, QemuHypervisor
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskSpec,
    FirmwareBoot,
    KernelBoot,
)
from tests.host.qemu.conftest import MIB, USERS, Events, Guest, Machine, guest_spec
from tests.host.qemu.guest import Console, exists, until

pytestmark = pytest.mark.qemu


def process_of(guest: Guest) -> int:
    """The guest's process, found from outside by its arguments."""
    wanted = guest.spec.uuid.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("the guest has no process")


async def test_counter_goes_on_after_a_second_save(machine: Machine, guest: Guest, tmp_path: Path) -> None:
    before = await guest.console.count()
    image = tmp_path / "again"
    image.touch()
    await machine.hypervisor.save(guest.domid, image)
    assert (await machine.hypervisor.status(guest.domid)).state is RunState.PAUSED
    await machine.hypervisor.unpause(guest.domid)  # a saved domain can also be resumed
    assert await guest.console.count() >= before
    await machine.hypervisor.destroy(guest.domid)
    status = await machine.hypervisor.restore(guest.spec, image, paused=True)
    assert status.state is RunState.PAUSED
    await machine.hypervisor.unpause(guest.domid)
    assert status.serial_socket is not None
    async with Console(status.serial_socket) as console:
        assert await console.count() >= before
        await console.run("true")


async def test_disks_and_processors_plugged_before_a_save_are_there_after_it(
    machine: Machine, guest: Guest, tmp_path: Path
) -> None:
    """QEMU gives disks as many queues as there are processors at start: two now, and one when the memory was saved.

    What the balloon took stays with it, whatever the new machine's target is.
    """
    hypervisor, domid = machine.hypervisor, guest.domid
    disk = DiskSpec(1, DiskKind.DISK, machine.image("second", "24M"))
    await hypervisor.set_vcpus(domid, 2)
    await hypervisor.plug_disk(domid, disk)
    await hypervisor.set_memory_target(domid, 96 * MIB)

    async def is_small() -> bool:
        return (await hypervisor.statistics(domid)).memory_actual == 96 * MIB

    await until(is_small)
    image = tmp_path / "again"
    image.touch()
    await hypervisor.save(domid, image)
    await hypervisor.destroy(domid)
    spec = replace(guest.spec, vcpus=2, disks=(*guest.spec.disks, disk))
    status = await hypervisor.restore(spec, image)
    assert await is_small()
    assert status.serial_socket is not None
    async with Console(status.serial_socket) as console:
        assert await console.run("cat /sys/block/vdb/size") == "49152"
        await console.run("echo 1 > /sys/devices/system/cpu/cpu1/online; test $(nproc) = 2")
        await console.run("dd if=/dev/vdb of=/dev/null bs=1M")


async def test_a_restored_guest_is_known_before_it_runs(
    machine: Machine, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a daemon killed at that moment would let the guest change its disks and then load the same memory again."""
    image = tmp_path / "again"
    image.touch()
    await machine.hypervisor.save(guest.domid, image)
    await machine.hypervisor.destroy(guest.domid)
    known: list[bool] = []
    let_run = Domain.set_running

    async def look_and_let_run(domain: Domain, run: bool) -> None:
        handle = domain.files.read_handle()
        known.append(handle is not None and handle.live)
        await let_run(domain, run)

    monkeypatch.setattr(Domain, "set_running", look_and_let_run)
    await machine.hypervisor.restore(guest.spec, image)
    assert known == [True]


async def test_failed_save_leaves_the_guest_running(machine: Machine, guest: Guest) -> None:
    with pytest.raises(HypervisorError):
        await machine.hypervisor.save(guest.domid, Path("/dev/full"))
    pipe = machine.directory / "pipe"
    os.mkfifo(pipe)

    def read_a_little() -> None:
        with pipe.open("rb") as stream:
            stream.read(100_000)

    reader = threading.Thread(target=read_a_little)
    reader.start()
    with pytest.raises(HypervisorError):
        await machine.hypervisor.save(guest.domid, pipe)
    reader.join()
    assert (await machine.hypervisor.status(guest.domid)).state is RunState.RUNNING
    await guest.console.run("true")


async def test_pause_stops_the_guest_and_says_so(machine: Machine, guest: Guest) -> None:
    await guest.console.count()
    await machine.hypervisor.pause(guest.domid)
    await machine.hypervisor.pause(guest.domid)
    said = guest.console.text
    await asyncio.sleep(0.5)
    assert guest.console.text == said
    await machine.hypervisor.unpause(guest.domid)
    await machine.hypervisor.unpause(guest.domid)
    await guest.console.run("true")
    assert machine.events.of(guest.domid) == [
        DomainStateChanged(guest.domid, RunState.PAUSED),
        DomainStateChanged(guest.domid, RunState.RUNNING),
    ]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("poweroff -f", StopReason.SHUTDOWN),
        ("reboot -f", StopReason.REBOOT),
        ("echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger", StopReason.CRASH),
    ],
)
async def test_why_a_guest_ended(machine: Machine, guest: Guest, command: str, reason: StopReason) -> None:
    guest.console.send(command)
    assert (await machine.events.stopped(guest.domid)).reason is reason
    assert len(machine.events.of(guest.domid)) == 1
    with pytest.raises(DomainNotFoundError):
        await machine.hypervisor.status(guest.domid)
    assert guest.status.serial_log is not None
    assert not guest.status.serial_log.exists()


async def test_power_button(machine: Machine, guest: Guest) -> None:
    await guest.console.eventually("ls -l /proc/$(pidof acpid)/fd | grep -q input/event")
    await machine.hypervisor.request_shutdown(guest.domid)
    assert (await machine.events.stopped(guest.domid)).reason is StopReason.SHUTDOWN


async def test_triggers_and_keys(machine: Machine, guest: Guest) -> None:
    for wrong in ("explode", ""):
        with pytest.raises(HypervisorError):
            await machine.hypervisor.send_trigger(guest.domid, wrong)
    with pytest.raises(HypervisorError):
        await machine.hypervisor.send_sysrq(guest.domid, "\n")
    await guest.console.run("echo 9 > /proc/sysrq-trigger; dmesg -c > /dev/null")
    await machine.hypervisor.send_sysrq(guest.domid, "h")
    await guest.console.eventually("dmesg | grep -q 'sysrq: HELP'")
    await machine.hypervisor.send_trigger(guest.domid, "nmi")
    await guest.console.eventually("dmesg | grep -q NMI")
    await machine.hypervisor.send_trigger(guest.domid, "reset")
    assert (await machine.events.stopped(guest.domid)).reason is StopReason.REBOOT


async def test_killed_from_outside(machine: Machine, guest: Guest) -> None:
    pid = process_of(guest)
    os.kill(pid, signal.SIGKILL)
    stopped = await machine.events.stopped(guest.domid, 20)
    assert stopped.reason is StopReason.CRASH
    assert "-9" in stopped.detail
    assert not exists(Path(f"/proc/{pid}"))  # reaped, no zombie


async def test_destroy_tells_before_it_returns(machine: Machine, guest: Guest) -> None:
    pid = process_of(guest)
    await machine.hypervisor.destroy(guest.domid)
    assert machine.events.of(guest.domid) == [DomainStopped(guest.domid, StopReason.DESTROYED)]
    assert not exists(Path(f"/proc/{pid}"))
    with pytest.raises(DomainNotFoundError):
        await machine.hypervisor.destroy(guest.domid)


async def test_destroy_of_a_process_that_does_not_listen(machine: Machine, guest: Guest) -> None:
    os.kill(process_of(guest), signal.SIGSTOP)
    await machine.hypervisor.destroy(guest.domid)
    assert machine.events.of(guest.domid) == [DomainStopped(guest.domid, StopReason.DESTROYED)]


async def test_isolation(guest: Guest) -> None:
    process = Path("/proc") / str(process_of(guest))
    fields = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "1"
    if USERS is None:
        pytest.skip("only root can give a domain a user of its own")
    assert set(fields["Uid"].split()) == {str(USERS.first + guest.domid)}
    assert set(fields["Gid"].split()) == set(fields["Groups"].split()) == {str(USERS.first + guest.domid)}
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    root = Path(os.readlink(process / "root"))
    assert root == Path(os.readlink(process / "cwd"))
    assert guest.status.serial_log is not None
    assert root.is_relative_to(guest.status.serial_log.parent)
    assert os.listdir(root) == []
    assert os.stat(root).st_uid == 0
    assert os.stat(root.parent).st_mode & 0o777 == 0o700


async def test_adoption(machine: Machine, guest: Guest) -> None:
    await guest.console.count()
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, machine.image("second", "8M")))
    await machine.hypervisor.close()
    await guest.console.run("true")  # nobody watches, the guest lives
    with pytest.raises(DomainNotFoundError):
        await machine.hypervisor.status(guest.domid)
    machine.hypervisor = machine.driver()
    assert await machine.hypervisor.open(machine.events) == [guest.status]
    rival = machine.driver()
    with pytest.raises(HypervisorError):
        await rival.open(machine.events)
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(2, DiskKind.DISK, machine.image("third", "8M")))
    await machine.hypervisor.unplug_disk(guest.domid, 1)
    os.kill(process_of(guest), signal.SIGKILL)
    assert (await machine.events.stopped(guest.domid, 20)).reason is StopReason.CRASH


async def test_a_domain_that_died_while_nobody_watched_is_not_adopted(machine: Machine, guest: Guest) -> None:
    await machine.hypervisor.close()
    pid = process_of(guest)  # while it has arguments to be found by
    guest.console.send("poweroff -f")

    async def is_zombie() -> bool:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"

    await until(is_zombie)
    machine.hypervisor = machine.driver()
    assert await machine.hypervisor.open(machine.events) == []
    assert guest.status.serial_log is not None
    assert not exists(guest.status.serial_log.parent)
    assert not exists(Path(f"/proc/{pid}"))


async def test_what_is_no_domains_is_left_alone(machine: Machine) -> None:
    """File systems of storage repositories are mounted beside the domains."""
    kept = machine.directory / "run" / "mounts" / "repository" / "disk"
    kept.parent.mkdir(parents=True)
    kept.write_text("somebody's")
    dead = machine.directory / "run" / "77"
    dead.mkdir()
    await machine.hypervisor.close()
    machine.hypervisor = machine.driver()
    await machine.hypervisor.open(machine.events)
    assert kept.read_text() == "somebody's"
    assert not exists(dead)


async def test_guest_channel_and_display(guest: Guest) -> None:
    agents = guest.status.guest_sockets[0]
    assert guest.status.vnc_socket is not None
    reader, writer = await asyncio.open_unix_connection(str(agents))
    port = (await guest.console.run("grep -l org.domzero.guest.0 /sys/class/virtio-ports/*/name")).split("/")[-2]
    await guest.console.run(f"echo from the guest > /dev/{port}")
    assert await asyncio.wait_for(reader.readline(), 30) == b"from the guest\n"
    writer.close()
    reader, writer = await asyncio.open_unix_connection(str(guest.status.vnc_socket))
    assert await asyncio.wait_for(reader.readexactly(12), 30) == b"RFB 003.008\n"
    writer.close()


async def test_serial_log_is_bounded(machine: Machine, guest: Guest) -> None:
    await machine.hypervisor.close()
    machine.hypervisor = machine.driver(Limits(log=4096))
    await machine.hypervisor.open(machine.events)
    serial_log = guest.status.serial_log
    assert serial_log is not None
    await guest.console.run("yes 0123456789abcde | head -n 2000")
    await guest.console.run("echo the last words")

    async def is_short() -> bool:
        return os.stat(serial_log).st_size <= 4096

    await until(is_short)
    await guest.console.run("echo and more")
    assert "and more" in files.tail(serial_log)


async def test_failed_start_leaves_nothing(machine: Machine, boot: KernelBoot) -> None:
    broken = machine.image("broken", "8M")
    broken.path.write_bytes(b"no image at all" * 100)
    spec = guest_spec(boot, broken)
    with pytest.raises(HypervisorError):
        await machine.hypervisor.start(spec)
    raw = guest_spec(KernelBoot(Path("/nonexistent"), None, ""), machine.image("raw", "1M", format=DiskFormat.RAW))
    with pytest.raises(HypervisorError, match="nonexistent"):
        await machine.hypervisor.start(raw)
    assert list((machine.directory / "run").iterdir()) == [machine.directory / "run" / "lock"]
    assert machine.events.all == []
    with pytest.raises(DomainNotFoundError):
        await machine.hypervisor.destroy(raw.domid)


async def test_backing_file_outside_the_repository_is_refused(
    machine: Machine, boot: KernelBoot, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret".ljust(1 << 20, b"\0"))
    evil = machine.image("evil", "-u", "-b", str(secret), "-F", "raw", "1M")
    with pytest.raises(HypervisorError, match="repository"):
        await machine.hypervisor.start(guest_spec(boot, evil))
    (machine.directory / "images" / "link").symlink_to(secret)
    linked = machine.image("linked", "-u", "-b", "link", "-F", "raw", "1M")
    with pytest.raises(HypervisorError, match="repository"):
        await machine.hypervisor.start(guest_spec(boot, linked))


async def test_firmware_boots_a_disc_without_rights_of_its_own(machine: Machine) -> None:
    """BIOS from a CD and UEFI with its variables, both without users, kernel or networking."""
    hypervisor = QemuHypervisor(machine.directory / "plain", machine.directory / "state")
    events = Events()
    assert await hypervisor.open(events) == []
    disc = machine.image("boot.iso", "1M", format=DiskFormat.RAW)
    disc.path.write_bytes(b"\0" * (1 << 20))
    drive = DiskSpec(3, DiskKind.CD, disc)
    spec = guest_spec(KernelBoot(Path("/"), None, ""), disc)
    bios = replace(spec, boot=FirmwareBoot("dc"), disks=(drive,), memory_target=96 * MIB)
    try:
        status = await hypervisor.start(bios, paused=True)
        assert status.state is RunState.PAUSED
        await hypervisor.unpause(bios.domid)
        variables = machine.directory / "variables"
        if hypervisor.capabilities().has_uefi:
            uefi = replace(bios, domid=bios.domid + 1_000_000, boot=FirmwareBoot("d", uefi=True, variables=variables))
            await hypervisor.start(uefi)
            await hypervisor.destroy(uefi.domid)
            assert os.stat(variables).st_mode & 0o777 == 0o600
        await hypervisor.destroy(bios.domid)
    finally:
        await hypervisor.close()
        for left in await hypervisor.open(events):
            await hypervisor.destroy(left.domid)
        await hypervisor.close()
