"""Disks and cards plugged into a running guest, beside the bare commands to QEMU."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bare_qemu import RunningMachine
from bench.client import Api
from bench.hosts import Host, host, new_machine
from bench.machines import Ours
from bench.report import Row, Section, Target, spread
from domzero.host.hypervisor.qemu import devices
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec

NOTES = """The small template's guest under TCG, whose kernel says on its serial line when a disk has appeared. VBD.plug
is timed from the call, over the Unix socket, until the guest has said so; beside it the same for `add-fd`,
`blockdev-add` and `device_add` by hand on a QEMU of the same command line. An unplug ends when the guest has let go.
VIF.plug ends with the call's return."""

LIMIT = Target(most=1.2)
SLOT = 1
SAID = b"[vdb]"
PATIENCE = 60.0
DISK = 64 << 20


def measure(quick: bool) -> Section:
    """Ours and bare in turn would need two guests at once; they run one after the other."""
    section = Section("Plugging", NOTES)
    rounds = 3 if quick else 60
    with tempfile.TemporaryDirectory() as name, host(Path(name), "qemu", core=None) as ours:
        api = ours.api()
        machine = _machine(ours, api)
        plugs, returns, unplugs = _ours(api, machine, rounds)
        cards = _cards(api, machine.vm, rounds)
        bare = machine.bare(Path(name, "bare"))
        machine.step("hard_shutdown")
        with bare.running() as beside:
            bare_plugs, bare_unplugs = _bare(beside, Path(name, "disk.qcow2"), rounds)
    for what, mine, theirs in (
        ("VBD.plug until the guest sees the disk", plugs, bare_plugs),
        ("VBD.unplug until the guest has let go", unplugs, bare_unplugs),
    ):
        ratio = statistics.median(mine) / statistics.median(theirs)
        section.add(Row(what, ratio, spread(mine).text("ms", 1e3), spread(theirs).text("ms", 1e3), LIMIT))
    ratio = statistics.median(returns) / statistics.median(bare_plugs)
    what = "VBD.plug until it returns: the guest's driver has taken the disk, and that is on record"
    section.add(Row(what, ratio, spread(returns).text("ms", 1e3), spread(bare_plugs).text("ms", 1e3)))
    section.add(Row("network.create and VIF.plug", None, spread(cards).text("ms", 1e3), "nothing beside it"))
    return section


def _machine(ours: Host, api: Api) -> Ours:
    """A running guest whose kernel talks."""
    vm = new_machine(api, "measured")
    words = str(api("VM.get_PV_args", vm)).replace("quiet", "")
    api("VM.set_PV_args", vm, words)
    machine = Ours(ours, api, vm)
    machine.step("start")
    machine.step("up")
    return machine


def _ours(api: Api, machine: Ours, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds until the guest saw the disk, until the call returned, and of each unplug."""
    fields: dict[str, Any] = {"name_label": "plugged", "name_description": "", "type": "user", "other_config": {}}
    sr = api("pool.get_default_SR", api("pool.get_all")[0])
    vdi = api("VDI.create", {**fields, "SR": sr, "virtual_size": str(DISK), "sharable": False, "read_only": False})
    drive: dict[str, Any] = {"VM": machine.vm, "VDI": vdi, "userdevice": str(SLOT), "bootable": False, "mode": "RW"}
    drive |= {"type": "Disk", "empty": False, "other_config": {}}
    vbd = api("VBD.create", {**drive, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    plugs, returns, unplugs = [], [], []
    for _ in range(rounds):
        plug = threading.Thread(target=lambda: api("VBD.plug", vbd))
        with appearing(machine.files.serial_log) as seconds:
            begin = time.monotonic()
            plug.start()
        plugs.append(seconds[0])
        plug.join()
        returns.append(time.monotonic() - begin)
        begin = time.monotonic()
        api("VBD.unplug", vbd)
        unplugs.append(time.monotonic() - begin)
    return plugs, returns, unplugs


def _cards(api: Api, vm: str, rounds: int) -> list[float]:
    taken = []
    for number in range(rounds):
        fields: dict[str, Any] = {"name_label": f"measured {number}", "name_description": "", "other_config": {}}
        begin = time.monotonic()
        network = api("network.create", {**fields, "MTU": "1500", "tags": []})
        card = {"device": "1", "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {}}
        vif = api("VIF.create", {**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
        api("VIF.plug", vif)
        taken.append(time.monotonic() - begin)
        api("VIF.unplug", vif)
        api("VIF.destroy", vif)
        api("network.destroy", network)
    return taken


def _bare(machine: RunningMachine, image: Path, rounds: int) -> tuple[list[float], list[float]]:
    _wait(machine.serial_log, b"tiny: ready", 1)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(DISK)], check=True)
    disk = DiskSpec(SLOT, DiskKind.DISK, DiskSource(image, DiskFormat.QCOW2))
    plugs, unplugs = [], []
    for number in range(900, 900 + rounds):
        with appearing(machine.serial_log) as seconds:
            descriptor = os.open(image, os.O_RDWR)
            machine.command("add-fd", [descriptor], **{"fdset-id": number})
            os.close(descriptor)
            file = {"driver": "file", "filename": f"/dev/fdset/{number}"}
            machine.command("blockdev-add", **{"node-name": f"node-{number}", "driver": "qcow2", "file": file})
            machine.command("device_add", **devices.disk_device(disk, f"node-{number}"))
        plugs.append(seconds[0])
        begin = time.monotonic()
        machine.command("device_del", id=f"disk-{SLOT}")
        machine.wait_for("DEVICE_DELETED", f"disk-{SLOT}")
        machine.command("blockdev-del", **{"node-name": f"node-{number}"})
        unplugs.append(time.monotonic() - begin)
    return plugs, unplugs


@contextmanager
def appearing(log: Path) -> Iterator[list[float]]:
    """Seconds from here until the guest has said once more that the disk is there."""
    seconds: list[float] = []
    wanted = log.read_bytes().count(SAID) + 1
    begin = time.monotonic()
    yield seconds
    _wait(log, SAID, wanted)
    seconds.append(time.monotonic() - begin)


def _wait(log: Path, said: bytes, times: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while log.read_bytes().count(said) < times:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the guest did not say {said!r}")
        time.sleep(0.0005)
