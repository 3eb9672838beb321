"""The parts of the driver that need no guest."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.hypervisor.protocol import DiskCounters, HypervisorError, RequestCounters
from domzero.host.hypervisor.qemu import accelerator, adoption, complaints, files, process, saving, signals, sizes
from domzero.host.hypervisor.qemu.accelerator import Decision
from domzero.host.hypervisor.qemu.files import DomainFiles, Handle
from domzero.host.hypervisor.qemu.launch import SavedMachine
from domzero.host.process import ProcessError, spawn_detached


@given(st.builds(SavedMachine, st.just("pc-q35-7.2"), st.integers(1, 1 << 44), st.integers(1, 255)))
def test_saved_header_round_trip(machine: SavedMachine) -> None:
    page = saving.header(machine)
    assert len(page) == saving.HEADER_SIZE
    assert saving.parse_header(page) == machine


@given(st.binary(max_size=200))
def test_hostile_headers_are_refused(content: bytes) -> None:
    for page in (content, (saving.MAGIC + content).ljust(saving.HEADER_SIZE, b"\0")):
        with pytest.raises(HypervisorError):
            saving.parse_header(page)


@pytest.mark.parametrize("machine", ["q35,accel=kvm", "../x", "none", "pc-q35-7.2\n"])
def test_a_header_cannot_add_options(machine: str) -> None:
    with pytest.raises(HypervisorError):
        saving.parse_header(saving.header(SavedMachine(machine, 1, 1)))


def test_handles_survive_a_restart_and_bad_ones_are_none(tmp_path: Path) -> None:
    domain = DomainFiles(tmp_path / "5")
    domain.create()
    assert domain.read_handle() is None
    handle = Handle(5, "uuid", "boot", pid=1, start_time=2, uid=3, live=True)
    domain.write_handle(handle)
    assert domain.read_handle() == handle
    assert domain.directory.stat().st_mode & 0o777 == 0o700
    for bad in ("", "[]", '{"domid": 5}', '{"unknown": 1}', "null"):
        domain.handle.write_text(bad)
        assert domain.read_handle() is None
    domain.remove()
    domain.remove()
    assert not domain.directory.exists()


def test_logs_keep_their_latest_half(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"0123456789")
    files.bound(log, 10)
    assert log.read_bytes() == b"0123456789"
    with log.open("ab") as writer:
        writer.write(b"ab")
        writer.flush()
        files.bound(log, 10)
        assert log.read_bytes() == b"789ab"
        writer.write(b"more")
    assert log.read_bytes() == b"789abmore"
    assert files.tail(log, 4) == "more"
    files.bound(tmp_path / "missing", 10)
    files.bound(tmp_path, 10)  # what cannot be cut ends nothing
    assert files.tail(tmp_path / "missing") == ""


def test_processors_flags() -> None:
    assert accelerator.has_virtualization("model name : x\nflags\t\t: fpu svm sse\n")
    assert accelerator.has_virtualization("flags\t\t: vmx\n")
    assert not accelerator.has_virtualization("flags\t\t: fpu svm_lock vmx2\nbugs : svm\n")
    assert not accelerator.has_virtualization("")


def test_probe_rom_starts_at_its_beginning() -> None:
    rom = accelerator.probe_rom(b"hi")
    assert len(rom) == 65536
    offset = int.from_bytes(rom[0xFFF1:0xFFF3], "little")
    assert rom[0xFFF0] == 0xE9
    assert (0xFFF3 + offset) % 65536 == 0
    assert b"\xb0h\xee\xb0i\xee" in rom[:16]


async def test_choice_without_extensions_asks_no_guest(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    decision = await accelerator.decide("auto", "/nonexistent", "flags : fpu\n", "boot", cache)
    assert decision.accelerator == "tcg"
    assert "vmx" in decision.reason
    with pytest.raises(HypervisorError, match="vmx"):
        await accelerator.decide("kvm", "/nonexistent", "flags : fpu\n", "boot", cache)
    assert (await accelerator.decide("tcg", "/nonexistent", "flags : vmx\n", "boot", cache)).accelerator == "tcg"


async def test_the_probe_runs_once_per_boot(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/runs\necho domzero probe\n")
    program.chmod(0o755)
    for boot in ("one", "one", "two"):
        decision = await accelerator.decide("auto", str(program), "flags : svm\n", boot, cache)
        assert decision == Decision("kvm", "A test guest ran under KVM.")
    assert (tmp_path / "runs").read_text() == "x\nx\n"
    cache.write_text("garbage")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert (await accelerator.decide("auto", str(program), "flags : svm\n", "two", cache)).accelerator == "tcg"


@pytest.mark.qemu
async def test_probe_guest_prints_its_line() -> None:
    assert await accelerator.guest_prints("qemu-system-x86_64", "tcg")
    assert not await accelerator.guest_prints("qemu-system-x86_64", "nonsense")


def test_names_count_up_past_everything_seen() -> None:
    assert adoption.highest_number([], []) == 0
    assert adoption.highest_number([3], ["image-0-12", "image-1-x", "#block3", "void-1-9"]) == 12
    assert adoption.highest_number([3], ["void-1-99", "pull-0-100"]) == 100


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            'qemu-system-x86_64: -blockdev {"node-name": "image-2-7", "x": "a: b"}: Failed to get "write" lock\n'
            "Is another process using the image [/dev/fdset/7]?\n",
            "disk 2: an image is in use by another domain or program",
        ),
        (
            'Failed to get shared "write" lock (QEMU, asked for blockdev-add)',
            "an image is in use by another domain or program",
        ),
        ("Device is busy (QEMU, asked for device_add)", "Device is busy"),
        ("qemu-system-x86_64: -vnc unix:/x: no room\n", "no room"),
        ("qemu-system-x86_64: cannot set up guest memory\n", "cannot set up guest memory"),
        ("\n", "QEMU did not say why"),
    ],
)
def test_complaints_without_qemus_words(said: str, reason: str) -> None:
    assert complaints.explained(said) == reason


def test_disk_counters_by_slot() -> None:
    stats = {"rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3, "wr_operations": 4}
    stats |= {"rd_total_time_ns": 5_000_000, "wr_total_time_ns": 6_000_000}
    found = sizes.disk_counters(
        [
            {"qdev": "/machine/peripheral/disk-12/virtio-backend", "stats": stats},
            {"qdev": "disk-3", "stats": stats},
            {"qdev": "/machine/peripheral/other", "stats": stats},
            {"stats": stats},
        ]
    )
    assert found == dict.fromkeys((3, 12), DiskCounters(1, 2, RequestCounters(3, 4, 0.005, 0.006)))


def test_key_codes() -> None:
    assert [signals.key_code(key) for key in "bB9 -"] == ["b", "b", "9", "spc", "minus"]
    for key in ("", "ab", "é", "\0"):
        with pytest.raises(HypervisorError):
            signals.key_code(key)


@pytest.mark.parametrize("code", [0, 3, -9])
async def test_a_watched_child_is_reaped_at_its_end(tmp_path: Path, code: int) -> None:
    ends: list[int] = []
    script = "import os, sys; os.read(3, 1); sys.exit(int(sys.argv[1]))"
    reader, writer = os.pipe()
    with (tmp_path / "out").open("wb") as out:
        spare = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, 200)
        pid = spawn_detached(
            [sys.executable, "-c", script.replace("3", str(spare)), str(code)], output=out.fileno(), pass_fds=[spare]
        )
    watched = process.WatchedProcess.watch(pid, lambda: ends.append(pid))
    assert os.getsid(pid) == pid
    if code < 0:
        watched.kill()
    else:
        os.write(writer, b"x")
    await asyncio.wait_for(watched.wait(), 60)
    assert (watched.exit_code, ends) == (code, [pid])
    assert process.start_time(pid) is None
    watched.kill()  # harmless now
    for fd in (reader, writer, spare):
        os.close(fd)


async def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, pytest.raises(ProcessError):
        spawn_detached(["/nonexistent/program"], output=out.fileno())


async def until_it_has_arguments(pid: int) -> None:
    """The kernel lets the parent go on a moment before a new program has its arguments (execve in fs/binfmt_elf.c)."""
    async with asyncio.timeout(20):
        while not (process.PROC / str(pid) / "cmdline").read_bytes():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("written", [True, False])
async def test_half_built_domains_are_ended(tmp_path: Path, written: bool) -> None:
    """A daemon that was killed while it built a domain leaves a process, known by number or only by its arguments."""
    domain = DomainFiles(tmp_path / "5")
    domain.create()
    stand_in = [sys.executable, "-c", "import time; time.sleep(60)", f"unix:{domain.vnc_socket},share=ignore"]
    with (tmp_path / "out").open("wb") as out:
        pid = spawn_detached(stand_in, output=out.fileno())
    await until_it_has_arguments(pid)
    handle = Handle(5, "uuid", process.boot_id())
    if written:
        handle = Handle(5, "uuid", process.boot_id(), pid=pid, start_time=process.start_time(pid))
    domain.write_handle(handle)
    await adoption.clear(domain)
    assert process.start_time(pid) is None
    assert not domain.directory.exists()


async def test_a_number_that_is_anothers_is_left_alone(tmp_path: Path) -> None:
    domain = DomainFiles(tmp_path / "5")
    domain.create()
    start = process.start_time(os.getpid())
    assert start is not None
    domain.write_handle(Handle(5, "uuid", process.boot_id(), pid=os.getpid(), start_time=start + 1, live=True))
    await adoption.clear(domain)
    domain.create()
    domain.write_handle(Handle(5, "uuid", "another boot", pid=os.getpid(), start_time=start, live=True))
    await adoption.clear(domain)
    assert not domain.directory.exists()
