"""Whole machines as archives, beside QEMU's own tools and `sha1sum` at the same time."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.report import Row, Section
from bench.transfers import (
    MEMORY,
    MEMORY_LIMIT,
    MIB,
    Peer,
    Scene,
    compare,
    curl,
    plain_host,
    prepared,
    resident,
    settled,
)

NOTES = """A machine with one disk of a `file` repository (qcow2) that is full of random data, in the page cache. Ours:
`curl` fetches or sends it as an archive by `/export` and `/import`. Beside it: what the section on transfers has beside
raw disks, while `sha1sum` hashes the same bytes and, where the archive is packed, `gzip -1` or `zstd -1 -T0` packs
them. Memory is how much the daemon's resident set grew at its highest, over all these transfers."""

MACHINE: dict[str, Any] = {
    "name_label": "measured", "name_description": "", "user_version": "1", "is_a_template": False,
    "affinity": "OpaqueRef:NULL", "memory_static_max": str(128 << 20), "memory_dynamic_max": str(128 << 20),
    "memory_dynamic_min": str(128 << 20), "memory_static_min": str(64 << 20), "VCPUs_params": {}, "VCPUs_max": "1",
    "VCPUs_at_startup": "1", "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
    "actions_after_crash": "destroy", "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "",
    "PV_bootloader_args": "", "PV_legacy_args": "", "HVM_boot_policy": "BIOS order",
    "HVM_boot_params": {"order": "cd"}, "platform": {}, "PCI_bus": "", "other_config": {}, "recommendations": "",
}  # fmt: skip
DRIVE: dict[str, Any] = {
    "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "unpluggable": True, "empty": False,
    "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
}  # fmt: skip


def measure(quick: bool) -> Section:
    """Both ways, with TLS and without; packed over TLS; the daemon's memory."""
    section = Section("Archives of machines", NOTES)
    size, rounds = (128 * MIB, 2) if quick else (1024 * MIB, 5)
    with tempfile.TemporaryDirectory() as name, plain_host(Path(name)) as (ours, http):
        before = settled(ours.pid)
        scene = prepared(ours, Path(name), size, http)
        vm = str(scene.api("VM.create", MACHINE))
        scene.api("VBD.create", {**DRIVE, "VM": vm, "VDI": scene.disk})
        archive = scene.directory / "machine.xva"
        fetch(scene, vm, archive, tls=False)
        for tls in (True, False):
            _both_ways(section, scene, vm, archive, rounds, tls=tls)
        for kind, program in PROGRAMS.items():
            _packed(section, scene, vm, rounds, kind, program)
        grown = resident(ours.pid) - before
        told = f"{grown / MIB:.0f} MiB"
        section.add(Row("the daemon's memory, in 64 MiB", grown / MEMORY_LIMIT, told, "64 MiB", MEMORY))
    return section


PROGRAMS = {"gzip": ("gzip", "-1", "-c"), "zstd": ("zstd", "-q", "-1", "-T0", "-c")}


def _both_ways(section: Section, scene: Scene, vm: str, archive: Path, rounds: int, *, tls: bool) -> None:
    how = "over TLS" if tls else "without TLS"
    peer = Peer(scene, tls)

    def out() -> None:
        fetch(scene, vm, Path("/dev/null"), tls=tls)

    def back() -> None:
        send(scene, archive, tls=tls)

    compare(section, f"machine export {how}", scene, rounds, out, beside(scene, peer.export))
    compare(section, f"machine import {how}", scene, rounds, back, beside(scene, peer.receive))


def _packed(section: Section, scene: Scene, vm: str, rounds: int, kind: str, program: Sequence[str]) -> None:
    def out() -> None:
        fetch(scene, vm, Path("/dev/null"), tls=True, query=f"&use_compression={kind}")

    by_hand = beside(scene, Peer(scene, True).export, program)
    compare(section, f"machine export, {kind}, over TLS", scene, rounds, out, by_hand)


def beside(scene: Scene, work: Callable[[], None], *programs: Sequence[str]) -> Callable[[], None]:
    """The work, and at the same time `sha1sum` and other programs that read the same bytes."""

    def together() -> None:
        with ExitStack() as running:
            for program in (("sha1sum",), *programs):
                running.enter_context(subprocess.Popen([*program, scene.file], stdout=subprocess.DEVNULL))
            work()

    return together


def fetch(scene: Scene, vm: str, file: Path, *, tls: bool, query: str = "") -> None:
    """Export the machine to a file."""
    curl(scene, f"/export?session_id={scene.api.session}&ref={vm}{query}", tls, "--output", file)


def send(scene: Scene, archive: Path, *, tls: bool) -> None:
    """Import a machine, which does not stay."""
    task = str(scene.api("task.create", "measured", ""))
    path = f"/import?session_id={scene.api.session}&task_id={task}"
    curl(scene, path, tls, "--upload-file", archive, "--header", "Expect:")
    record = scene.api("task.get_record", task)
    if record["status"] != "success":
        raise RuntimeError(f"the import ended as {record['status']}: {record['error_info']}")
    vm = record["result"].split("<value>")[2].split("<")[0]
    disk = scene.api("VBD.get_VDI", scene.api("VM.get_VBDs", vm)[0])
    scene.api("VM.destroy", vm)
    scene.api("VDI.destroy", disk)
