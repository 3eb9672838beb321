"""Linux installed from repositories on loopback into real machines, which boot from their disk afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from XenAPI import Failure

from domzero.host.guest_image.console import is_ready
from domzero.toolstack.storage.disks import disk_source
from tests.api.guest import Guest, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.api.installation import INSTALLED, SAYS, InstallerImage, boot_sector, build_installer
from tests.toolstack.vm.install.repository import ASKED, PLACES, repository, served

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        None in (shutil.which("pygrub"), shutil.which("bwrap")) or os.geteuid() != 0,
        reason="needs root, and pygrub and bwrap (Debian: xen-utils-4.17, bubblewrap)",
    ),
]

TOLD = {
    "debian": "mirror/http/directory=/",
    "ubuntu": "mirror/http/directory=/",
    "ubuntu-22": "mirror/http/directory=/",
    "red-hat-4": "method=http://127.0.0.1",
    "red-hat": "inst.repo=http://127.0.0.1",
    "centos": "inst.repo=http://127.0.0.1",
    "suse": "install=http://127.0.0.1",
    "suse-9": "install=http://127.0.0.1",
}

DRIVE = {
    "userdevice": "3", "bootable": True, "mode": "RO", "type": "CD", "empty": False, "unpluggable": True,
    "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture(scope="module")
def image() -> InstallerImage:
    return asyncio.run(build_installer())


@pytest.fixture
def api(host: InProcessHost) -> Any:
    return login(host.url).xenapi


@pytest.fixture
def guest(host: InProcessHost, api: Any) -> Iterator[Guest]:
    """A machine with a blank disk, whose boot loader is eliloader."""
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "installed")
    api.VM.set_memory_limits(vm, *[str(256 << 20)] * 4)
    api.VM.set_PV_kernel(vm, "")
    api.VM.set_PV_ramdisk(vm, "")
    api.VM.set_PV_args(vm, "")
    api.VM.set_PV_bootloader(vm, "eliloader")
    api.VM.provision(vm)
    yield Guest(host, api, vm, patience=120.0)
    remove_machine(api, vm)


def ask(api: Any, vm: str, url: str, layout: str, **more: str) -> None:
    present = api.VM.get_other_config(vm)
    api.VM.set_other_config(vm, {**present, "install-repository": url, **ASKED[layout], **more})


def start(guest: Guest) -> None:
    guest.api.VM.start(guest.vm, False, False)


def until(condition: Callable[[], bool], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


AFTER_THE_START = {"debian": "pygrub", "red-hat-4": "eliloader", "red-hat": "pygrub", "suse": "eliloader"}
"""One layout of each family that is unlike the others: who boots the machine next once its installer runs."""


def installer_starts(guest: Guest, image: InstallerImage, layout: str, **more: str) -> None:
    """Start the machine, whose installer says on the serial line what it was told."""
    with served(repository(layout, image.kernel, image.ramdisk)) as (url, _):
        ask(guest.api, guest.vm, url, layout, **more)
        start(guest)
    told = guest.wait_for(lambda log: log if f"{SAYS}told ".encode() in log else None, "the installer's start")
    assert TOLD[layout] in told.decode(errors="replace")


@pytest.mark.parametrize("layout", AFTER_THE_START)
def test_a_machine_is_installed_and_boots_what_was_installed(guest: Guest, image: InstallerImage, layout: str) -> None:
    api, vm = guest.api, guest.vm
    installer_starts(guest, image, layout, **{"install-args": "install.disk=yes"})
    assert api.VM.get_PV_bootloader(vm) == AFTER_THE_START[layout]
    domain = api.VM.get_domid(vm)
    # It installs, reboots by itself, and comes back as another domain: from its own disk.
    until(lambda: api.VM.get_domid(vm) not in (domain, "-1"), guest.patience)
    guest.wait_for(is_ready, "the boot from disk")
    assert api.VM.get_PV_bootloader(vm) == "pygrub"
    booted = api.VM.get_boot_record(vm)
    assert booted["PV_args"].startswith("root=/dev/vda1 console=ttyS0 ")
    guest.wait_for(lambda log: f"{INSTALLED} login:".encode() in log, "the login")


@pytest.mark.parametrize("layout", sorted(PLACES.keys() - AFTER_THE_START.keys()))
def test_each_other_layouts_installer_starts(guest: Guest, image: InstallerImage, layout: str) -> None:
    installer_starts(guest, image, layout)


@pytest.mark.skipif(shutil.which("genisoimage") is None, reason="needs genisoimage")
def test_an_installer_on_the_disc_in_the_drive_starts(guest: Guest, image: InstallerImage, tmp_path: Path) -> None:
    api, vm = guest.api, guest.vm
    (tmp_path / "images/pxeboot").mkdir(parents=True)
    for name, content in zip(PLACES["red-hat"], (image.kernel, image.ramdisk), strict=True):
        (tmp_path / name).write_bytes(content)
    (library,) = (sr for sr in api.SR.get_by_name_label("ISO library") if api.SR.get_PBDs(sr))
    directory = Path(api.PBD.get_device_config(api.SR.get_PBDs(library)[0])["location"])
    subprocess.run(["genisoimage", "-quiet", "-R", "-o", directory / "installer.iso", tmp_path], check=True)
    api.SR.scan(library)
    (disc,) = api.VDI.get_by_name_label("installer.iso")
    api.VBD.create({**DRIVE, "VM": vm, "VDI": disc})
    ask(api, vm, "cdrom", "red-hat", **{"install-args": "from.disc"})
    start(guest)
    told = guest.wait_for(lambda log: log if f"{SAYS}told ".encode() in log else None, "the installer's start")
    assert "inst.repo=cdrom" in told.decode(errors="replace")
    assert "from.disc" in told.decode(errors="replace")
    assert api.VM.get_PV_bootloader(vm) == "pygrub"


def content_of(guest: Guest, begin: bytes) -> None:
    """Put bytes at the beginning of the machine's disk, behind everybody's back."""
    api, stack = guest.api, guest.host.daemon.stack
    vdi = next(api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(guest.vm) if api.VBD.get_type(vbd) == "Disk")

    async def write() -> None:
        async with stack.contents.writing(await disk_source(stack, vdi)) as disk:
            await disk.write(0, begin)
            await disk.flush()

    guest.host.run(write())


def test_a_boot_loader_on_the_disk_itself_is_run_by_firmware(guest: Guest) -> None:
    guest.api.VM.set_PV_bootloader(guest.vm, "pygrub")
    content_of(guest, boot_sector(b"the disk's own loader\r\n"))
    start(guest)
    guest.wait_for(lambda log: b"the disk's own loader" in log, "the disk's loader")


def test_a_blank_disk_has_nothing_to_boot(guest: Guest) -> None:
    guest.api.VM.set_PV_bootloader(guest.vm, "pygrub")
    with pytest.raises(Failure) as error:
        start(guest)
    code, vm, why = error.value.details
    assert (code, vm) == ("BOOTLOADER_FAILED", guest.vm)
    assert "no partition with a boot menu" in why
