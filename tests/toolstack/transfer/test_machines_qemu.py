"""Real machines in and out: the same bit for bit, and they boot."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.toolstack.storage.disks import disk_source
from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.host.children import arguments, children
from tests.toolstack.transfer.test_machines_over_http import curl, ended, first_disk, sign_in, upload
from tests.xva_writer import machine, xva

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture(scope="module")
def api(host: InProcessHost) -> Iterator[Any]:
    session = login(host.url)
    yield session.xenapi
    session.xenapi.session.logout()


def export(host: InProcessHost, api: Any, vm: str, file: Path, query: str = "") -> None:
    task = api.task.create("export", "")
    code, _ = curl("-o", str(file), f"{sign_in(host)}/export?ref={vm}&task_id={task}{query}")
    record = ended(api, task)
    assert (code, record["status"]) == (0, "success"), record["error_info"]


def imported(host: InProcessHost, api: Any, file: Path, query: str = "") -> str:
    record = upload(host, api, file, query)
    assert record["status"] == "success", record["error_info"]
    return str(record["result"].split("<value>")[2].split("<")[0])


def path_of(host: InProcessHost, vdi: str) -> Path:
    return Path(host.run(disk_source(host.daemon.stack, vdi)).path)


def same(host: InProcessHost, one: str, other: str) -> None:
    """`qemu-img` finds no difference between two disks."""
    # Not `-s`: what is zero and what is not there reads the same.
    compare(path_of(host, one), path_of(host, other))


def compare(one: Path, other: Path) -> None:
    done = subprocess.run(["qemu-img", "compare", one, other], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("query", ["", "&use_compression=gzip"])
def test_a_machine_is_the_same_bit_for_bit_and_boots(host: InProcessHost, api: Any, tmp_path: Path, query: str) -> None:
    guest = make_machine(host, api, "travels")
    api.VM.start(guest.vm, False, False)
    guest.wait_until_up()
    assert guest.boots() == 1
    api.VM.clean_shutdown(guest.vm)
    file = tmp_path / "machine.xva"
    export(host, api, guest.vm, file, query)
    vm = imported(host, api, file)
    same(host, first_disk(api, guest.vm), first_disk(api, vm))
    assert api.VM.get_power_state(vm) == "Halted"
    copy = Guest(host, api, vm)
    api.VM.start(vm, False, False)
    assert copy.boots() == 2
    for made in (guest.vm, vm):
        remove_machine(api, made)


def test_a_suspended_machine_goes_on_where_it_was(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    guest = make_machine(host, api, "sleeps", ticking=True)
    api.VM.start(guest.vm, False, False)
    guest.wait_until_up()
    seen = guest.ticks_reach(4)[-1]
    api.VM.suspend(guest.vm)
    file = tmp_path / "machine.xva"
    export(host, api, guest.vm, file, "&preserve_power_state=true")
    remove_machine(api, guest.vm)
    vm = imported(host, api, file, "&restore=true")
    assert api.VM.get_power_state(vm) == "Suspended"
    api.VM.resume(vm, False, False)
    awake = Guest(host, api, vm)
    assert min(awake.ticks_reach(seen + 3)) > 1
    remove_machine(api, vm)


def tools() -> list[str]:
    """The command lines of this process's children that move disks."""
    lines = [b" ".join(arguments(pid)).decode() for pid in children()]
    return [line for line in lines if "qemu-storage-daemon" in line or "zstd" in line]


def test_archives_of_others_come_and_broken_ones_leave_nothing(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    content = os.urandom(5 << 20) + bytes(40 << 20) + b"end of it"
    file = tmp_path / "theirs.xva"
    file.write_bytes(xva(machine("theirs", {"0": content}), compress="zstd", checksum="sha1"))
    vm = imported(host, api, file)
    raw = tmp_path / "content"
    raw.write_bytes(content.ljust(int(api.VDI.get_virtual_size(first_disk(api, vm))), b"\0"))
    compare(raw, path_of(host, first_disk(api, vm)))
    image = path_of(host, first_disk(api, vm))
    assert image.stat().st_blocks * 512 < 8 << 20
    before = set(image.parent.iterdir()), set(api.VDI.get_all()), set(api.VM.get_all())
    file.write_bytes(file.read_bytes()[: 3 << 20])
    assert upload(host, api, file)["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"]
    assert (set(image.parent.iterdir()), set(api.VDI.get_all()), set(api.VM.get_all())) == before
    assert tools() == []
    remove_machine(api, vm)


def test_a_huge_sparse_disk_takes_neither_time_nor_room(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    guest = make_machine(host, api, "huge")
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    vdi = api.VDI.create({
        "name_label": "huge", "name_description": "", "SR": sr, "virtual_size": str(4 << 40), "type": "user",
        "sharable": False, "read_only": False, "other_config": {},
    })  # fmt: skip
    api.VBD.create({
        "VM": guest.vm, "VDI": vdi, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk",
        "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    file = tmp_path / "huge.xva"
    export(host, api, guest.vm, file)
    assert file.stat().st_size < 8 << 20
    vm = imported(host, api, file)
    sizes = {api.VDI.get_virtual_size(api.VBD.get_VDI(vbd)) for vbd in api.VM.get_VBDs(vm)}
    assert str(4 << 40) in sizes
    for made in (guest.vm, vm):
        remove_machine(api, made)


SAYS = b"booted from its own disk\r\n"
LOADER = bytes.fromhex("31c0 8ed8 fc be167c baf803 ac 08c0 7403 ee ebf8 f4 ebfd") + SAYS + b"\0"
"""A boot sector that writes a sentence to the first serial line, a byte at a time, and halts."""
XEN = {
    "HVM_boot_policy": "", "HVM_boot_params": {}, "PV_args": "root=/dev/xvda1 ro console=hvc0",
    "memory_static_max": str(128 << 20), "memory_dynamic_max": str(128 << 20), "memory_dynamic_min": str(128 << 20),
    "VCPUs_max": "1", "VCPUs_at_startup": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    "boot", [{"PV_bootloader": "pygrub"}, {"PV_kernel": "/boot/guest/vmlinuz-2.6.18-xen"}], ids=["pygrub", "kernel"]
)
def test_a_paravirtual_machine_of_xen_boots(
    host: InProcessHost, api: Any, tmp_path: Path, boot: dict[str, str]
) -> None:
    disk = LOADER.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)
    file = tmp_path / "xen.xva"
    file.write_bytes(xva(machine("from Xen", {"0": disk}, vm={**XEN, **boot})))
    vm = imported(host, api, file)
    assert api.VM.get_PV_args(vm) == "root=/dev/vda1 ro console=ttyS0"
    notes = api.VM.get_other_config(vm)["import-notes"]
    assert ("vmlinuz-2.6.18-xen" in notes) == ("PV_kernel" in boot)
    assert "no boot loader" not in notes
    guest = Guest(host, api, vm)
    api.VM.start(vm, False, False)
    guest.wait_for(lambda log: SAYS in log, "the boot")
    remove_machine(api, vm)
