"""The life of real virtual machines, beside bare QEMU and beside libvirt."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench import libvirt_host
from bench.bare_qemu import BareMachine
from bench.client import Api
from bench.hosts import Host, host, new_machine
from bench.report import Row, Section, Target, spread
from domzero.host.hypervisor.qemu.files import DomainFiles

NOTES = """The small template's guest under TCG, 256 MB, one qcow2 disk; libvirt runs the same kernel, RAM disk and
memory with a disk of the same size. A step is timed from its call, over the Unix socket, until the call has returned.
Bare QEMU is the same command line started by hand: from exec to its RESUME event, and from `quit` until it is
reaped."""

LIFE = ("start", "up", "pause", "unpause", "suspend", "resume", "hard_shutdown")
BARE_START, LIBVIRT_START, NO_SLOWER = Target(most=1.5), Target(most=1 / 3), Target(most=1.0)
UP = "tiny: ready"
UP_SECONDS = 120.0
AT_ONCE = 20


class Runner(Protocol):
    """Something that takes one machine through its life."""

    def step(self, name: str) -> float:
        """Do one step of `LIFE`: its seconds."""
        ...


class Ours:
    """A machine of domzero."""

    def __init__(self, ours: Host, api: Api, vm: str) -> None:
        self._host = ours
        self._api = api
        self.vm = vm

    @property
    def files(self) -> DomainFiles:
        """The files of its present domain."""
        return DomainFiles(self._host.state / "run" / str(self._api("VM.get_domid", self.vm)))

    def step(self, name: str) -> float:
        begin = time.monotonic()
        if name == "up":
            self._wait_until_up()
        else:
            self._api(f"VM.{name}", self.vm, *((False, False) if name in ("start", "resume") else ()))
        return time.monotonic() - begin

    def bare(self, directory: Path) -> BareMachine:
        """The present domain's command line, to be run by hand; the machine must run now."""
        handle = self.files.read_handle()
        assert handle is not None
        assert handle.pid is not None
        image = next((self._host.state / "sr").glob("*.qcow2"))
        return BareMachine(handle.pid, self.files.directory, image, directory)

    def _wait_until_up(self) -> None:
        log, deadline = self.files.serial_log, time.monotonic() + UP_SECONDS
        while UP.encode() not in log.read_bytes():
            if time.monotonic() > deadline:
                raise TimeoutError("the guest did not start")
            time.sleep(0.01)


class Libvirts:
    """A machine of libvirt."""

    def __init__(self, peer: libvirt_host.Peer, name: str) -> None:
        self._peer = peer
        self._name = name

    def step(self, name: str) -> float:
        return float(self._peer.ask("step", name=self._name, step=name, said=UP, limit=UP_SECONDS)["seconds"])


def measure(quick: bool) -> Section:
    """Starts alone, whole lives, and many starts at once."""
    section = Section("Machines on QEMU", NOTES)
    starts, lives, at_once = (3, 1, 4) if quick else (15, 5, AT_ONCE)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with host(directory, "qemu", core=None) as ours, libvirt_host.peer() as peer:
            api = ours.api()
            machine = Ours(ours, api, new_machine(api, "measured"))
            theirs = None if peer is None else Libvirts(peer, define(peer, ours, directory, 0))
            _against_bare(section, machine, directory / "bare", starts)
            _lives(section, machine, theirs, starts, lives)
            _at_once(section, ours, peer, directory, at_once)
    return section


def define(peer: libvirt_host.Peer, ours: Host, directory: Path, number: int) -> str:
    """A machine of libvirt's, like ours. Its name."""
    name = f"guest{number}"
    disk, serial = directory / f"{name}.qcow2", directory / f"{name}.log"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
    vm = ours.api()("VM.get_by_name_label", "Tiny Linux")[0]
    record: dict[str, Any] = ours.api()("VM.get_record", vm)
    peer.ask(
        "define",
        name=name,
        kib=int(record["memory_static_max"]) // 1024,
        kernel=record["PV_kernel"],
        ramdisk=record["PV_ramdisk"],
        arguments=record["PV_args"],
        disk=str(disk),
        serial=str(serial),
    )
    return name


def _against_bare(section: Section, machine: Ours, directory: Path, rounds: int) -> None:
    """Our start and stop, and those of the same command line by hand, in turn."""
    machine.step("start")
    bare = machine.bare(directory)
    machine.step("hard_shutdown")
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append((machine.step("start"), machine.step("hard_shutdown")))
        theirs.append(bare.cycle())
    for place, (what, target) in enumerate((("VM.start", BARE_START), ("VM.hard_shutdown", None))):
        a, b = ([pair[place] for pair in pairs] for pairs in (ours, theirs))
        _row(section, f"{what}, to bare QEMU", a, b, target)


def _lives(section: Section, machine: Ours, theirs: Libvirts | None, starts: int, lives: int) -> None:
    """Starts and stops alone, then whole lives, ours and libvirt's in turn."""
    runners: list[Runner] = [machine] if theirs is None else [machine, theirs]
    short = [_repeat(runner, ("start", "hard_shutdown")) for _ in range(starts) for runner in runners]
    long = [_repeat(runner, LIFE) for _ in range(lives) for runner in runners]
    for step in LIFE:
        source = short if step in ("start", "hard_shutdown") else long
        seconds = [life["start"] + life[step] if step == "up" else life[step] for life in source]
        what = "VM.start until the guest is up" if step == "up" else f"VM.{step}"
        target = {"start": LIBVIRT_START, "up": None, "pause": None, "unpause": None}.get(step, NO_SLOWER)
        mine = seconds[:: len(runners)]
        if theirs is None:
            section.add(Row(f"{what}, to libvirt", None, spread(mine).text("ms", 1e3), libvirt_host.MISSING, target))
        else:
            _row(section, f"{what}, to libvirt", mine, seconds[1::2], target)


def _repeat(runner: Runner, steps: Sequence[str]) -> dict[str, float]:
    return {step: runner.step(step) for step in steps}


def _row(section: Section, what: str, ours: Sequence[float], theirs: Sequence[float], target: Target | None) -> None:
    ratio = statistics.median(ours) / statistics.median(theirs)
    section.add(Row(what, ratio, spread(ours).text("ms", 1e3), spread(theirs).text("ms", 1e3), target))


def _at_once(section: Section, ours: Host, peer: libvirt_host.Peer | None, directory: Path, count: int) -> None:
    api = ours.api()
    machines = [Ours(ours, ours.api(), new_machine(api, f"one of many {number}")) for number in range(count)]
    seconds = together([lambda machine=machine: machine.step("start") for machine in machines])  # type: ignore[misc]
    together([lambda machine=machine: machine.step("hard_shutdown") for machine in machines])  # type: ignore[misc]
    what = f"{count} VM.start at once, until the last has returned, to libvirt"
    said = f"{seconds:.2f} s, {count / seconds:.1f} a second"
    if peer is None:
        section.add(Row(what, None, said, libvirt_host.MISSING))
        return
    names = [define(peer, ours, directory, number) for number in range(1, count + 1)]
    beside = float(peer.ask("start_all", names=names)["seconds"])
    section.add(Row(what, seconds / beside, said, f"{beside:.2f} s, {count / beside:.1f} a second"))


def together(work: Sequence[Callable[[], object]]) -> float:
    """Do everything at once, each in a thread: seconds until the last has ended. Raises what any of it raised."""
    problems: list[Exception] = []

    def guarded(one: Callable[[], object]) -> None:
        try:
            one()
        except Exception as problem:  # noqa: BLE001 - raised again below
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return time.monotonic() - begin
