"""Disks of a file repository, beside `qemu-img` doing the bare work, and how flat the cost of a call is."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.client import Api
from bench.hosts import host
from bench.report import Row, Section, Target, spread

NOTES = """A repository of type `file` on the machine's own disk; calls over the Unix socket, in turn with the same work
done by hand. Beside a clone or snapshot are its two overlays made by `qemu-img create`. What is judged for these three
is how much longer a call takes than the bare work: 30 ms are 1. Copies are of 1 GiB of which a third is random data,
the rest holes, and are put on the medium in both cases."""

OVERHEAD = 0.030
WITHIN, FLAT, COPY = Target(most=1.0), Target(most=1.5), Target(least=0.9)
GIB, TIB = 1 << 30, 1 << 40


class Work:
    """Calls on disks, each timed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.sr = str(api("pool.get_default_SR", api("pool.get_all")[0]))

    def create(self, size: int = GIB) -> tuple[float, str]:
        """A new disk: how long it took, and the disk."""
        fields: dict[str, Any] = {"name_label": "measured", "name_description": "", "SR": self.sr, "type": "user"}
        fields |= {"virtual_size": str(size), "sharable": False, "read_only": False, "other_config": {}}
        return self._timed("VDI.create", fields)

    def derive(self, message: str, vdi: str) -> tuple[float, str]:
        """VDI.clone or VDI.snapshot."""
        return self._timed(message, vdi, {})

    def copy(self, vdi: str) -> tuple[float, str]:
        """A full copy in the same repository."""
        return self._timed("VDI.copy", vdi, self.sr)

    def scan(self) -> float:
        """SR.scan."""
        return self._timed("SR.scan", self.sr)[0]

    def destroy(self, vdi: str) -> None:
        """Not timed."""
        self._api("VDI.destroy", vdi)

    def location(self, vdi: str) -> str:
        """The name of the disk's file without its ending."""
        return str(self._api("VDI.get_location", vdi))

    def _timed(self, message: str, *arguments: Any) -> tuple[float, str]:
        begin = time.monotonic()
        answer = self._api(message, *arguments)
        return time.monotonic() - begin, str(answer)


def measure(quick: bool) -> Section:
    """Single calls, sizes and numbers of disks, a copy, a scan."""
    section = Section("Disks", NOTES)
    rounds, many = (4, 60) if quick else (20, 1000)
    with tempfile.TemporaryDirectory() as name, host(Path(name), "qemu", core=None) as ours:
        work, bare = Work(ours.api()), Bare(Path(name, "bare"))
        _against_bare(section, work, bare, rounds)
        _copies(section, work, bare, ours.state / "sr", 2 if quick else 5)
        _sizes(section, work, rounds)
        _numbers(section, work, ours.state / "sr", rounds, many)
    return section


class Bare:
    """The same work by hand, each timed."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory

    def create(self) -> float:
        """A new image."""
        return self._run("create", "-q", "-f", "qcow2", self._path("disk"), str(GIB))

    def derive(self) -> float:
        """Two overlays of one image."""
        above = ("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2")
        return sum(self._run(*above, self._path(name)) for name in ("next", "new"))

    def convert(self, image: Path) -> float:
        """A full copy, put on the medium."""
        target = self._path("copy")
        begin = time.monotonic()
        self._run("convert", "-f", "qcow2", "-O", "qcow2", image, target)
        descriptor = os.open(target, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
        return time.monotonic() - begin

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.qcow2"

    def _run(self, *arguments: str | Path) -> float:
        begin = time.monotonic()
        subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin


def _against_bare(section: Section, work: Work, bare: Bare, rounds: int) -> None:
    """VDI.create, clone and snapshot: the time beyond the bare work's, in units of what is allowed."""
    kept = work.create()[1]
    bare.create()
    steps: tuple[tuple[str, Callable[[], tuple[float, str]], Callable[[], float]], ...] = (
        ("VDI.create", work.create, bare.create),
        ("VDI.clone", lambda: work.derive("VDI.clone", kept), bare.derive),
        ("VDI.snapshot", lambda: work.derive("VDI.snapshot", kept), bare.derive),
    )
    for what, ours, theirs in steps:
        mine, beside = [], []
        for _ in range(rounds):
            seconds, made = ours()
            mine.append(seconds)
            beside.append(theirs())
            work.destroy(made)
        over = (statistics.median(mine) - statistics.median(beside)) / OVERHEAD
        told = (f"{what}, beyond the bare work, in 30 ms", over, spread(mine).text("ms", 1e3))
        section.add(Row(*told, spread(beside).text("ms", 1e3), WITHIN))
    work.destroy(kept)


def _copies(section: Section, work: Work, bare: Bare, directory: Path, rounds: int) -> None:
    """VDI.copy beside `qemu-img convert` of the same image."""
    vdi = work.create()[1]
    image = directory / f"{work.location(vdi)}.qcow2"
    raw = bare.directory / "random"
    with raw.open("wb") as file:
        file.truncate(GIB)
        for number in range(0, 1024, 3):
            file.seek(number << 20)
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    mine, beside = [], []
    for _ in range(rounds):
        beside.append(bare.convert(image))
        seconds, made = work.copy(vdi)
        mine.append(seconds)
        work.destroy(made)
    ratio = statistics.median(beside) / statistics.median(mine)
    told = ("VDI.copy, speed to `qemu-img convert`", ratio, spread(mine).text("s"), spread(beside).text("s"))
    section.add(Row(*told, COPY))
    work.destroy(vdi)


def _sizes(section: Section, work: Work, rounds: int) -> None:
    """Whether a call on a disk of 1 TiB takes longer than on one of 1 GiB."""
    disks = {size: work.create(size)[1] for size in (GIB, TIB)}
    for what in ("VDI.create", "VDI.clone", "VDI.snapshot"):
        taken: dict[int, list[float]] = {GIB: [], TIB: []}
        for _ in range(rounds):
            for size, vdi in disks.items():
                seconds, made = work.create(size) if what == "VDI.create" else work.derive(what, vdi)
                taken[size].append(seconds)
                work.destroy(made)
        _flat(section, f"{what} of 1 TiB, to 1 GiB", taken[TIB], taken[GIB])
    for vdi in disks.values():
        work.destroy(vdi)


def _numbers(section: Section, work: Work, directory: Path, rounds: int, many: int) -> None:
    """Whether calls take longer in a repository of many disks; and looking at them all."""
    kept = work.create()[1]
    few = {what: _calls(work, what, kept, rounds) for what in ("VDI.create", "VDI.clone", "VDI.snapshot")}
    made = [work.create()[1] for _ in range(many)]
    for what, before in few.items():
        _flat(section, f"{what} beside {many} disks, to beside one", _calls(work, what, kept, rounds), before)
    scans = [work.scan() for _ in range(5)]
    looks = [_look(directory) for _ in range(5)]
    ratio = statistics.median(scans) / statistics.median(looks)
    what = f"SR.scan of {many} disks, to reading each file's header"
    section.add(Row(what, ratio, spread(scans).text("ms", 1e3), spread(looks).text("ms", 1e3)))
    for vdi in (*made, kept):
        work.destroy(vdi)


def _calls(work: Work, what: str, kept: str, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        seconds, made = work.create() if what == "VDI.create" else work.derive(what, kept)
        taken.append(seconds)
        work.destroy(made)
    return taken


def _look(directory: Path) -> float:
    begin = time.monotonic()
    with os.scandir(directory) as entries:
        for entry in entries:
            with open(entry.path, "rb") as file:
                file.read(4096)
    return time.monotonic() - begin


def _flat(section: Section, what: str, large: Sequence[float], small: Sequence[float]) -> None:
    ratio = statistics.median(large) / statistics.median(small)
    section.add(Row(what, ratio, spread(large).text("ms", 1e3), spread(small).text("ms", 1e3), FLAT))
