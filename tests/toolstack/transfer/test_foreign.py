"""Machines from Xen: what is changed in them, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.idl.records import Layout
from domzero.toolstack.stack import StackSettings
from domzero.toolstack.transfer.foreign import ORIGINAL, RULES, Adapted, Guest, adapt
from tests.toolstack.transfer.peers import import_bytes
from tests.toolstack.vm.world import World
from tests.xva_writer import machine, xva

SETTINGS = StackSettings(
    Path("/state"), "1.0", guest_kernel=Path("/here/vmlinuz"), guest_ramdisk=Path("/here/initramfs")
)
LAYOUT = Layout(GRAPH.classes["VM"])
MACHINE: Mapping[str, Any] = {**dict(zip(LAYOUT.names, LAYOUT.defaults, strict=True)), "domain_type": "pv"}
HVM = {"domain_type": "hvm", "HVM_boot_policy": "BIOS order"}


def adapted(fields: Mapping[str, Any], **more: Any) -> Adapted:
    return adapt(Guest({**MACHINE, **fields}, SETTINGS, **{"own": False, **more}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root=/dev/xvda1 ro console=hvc0", "root=/dev/vda1 ro console=ttyS0"),
        ("root=/dev/sda1 console=xvc0 quiet", "root=/dev/vda1 console=ttyS0 quiet"),
        ("root=/dev/xvdc2", "root=/dev/vdb2"),
        ("root=/dev/xvdd", "root=/dev/xvdd"),
        ("root=/dev/mapper/vg-xvda ro", "root=/dev/mapper/vg-xvda ro"),
        ("root=LABEL=x console=tty0", "root=LABEL=x console=tty0"),
    ],
)
def test_kernel_arguments_name_virtio_disks_and_the_serial_line(before: str, after: str) -> None:
    fields = adapted({"PV_args": before, "PV_bootloader": "pygrub"}, disks=["0", "2"]).fields
    assert fields["PV_args"] == after
    assert fields["other_config"].get(ORIGINAL + "PV_args") == (before if before != after else None)


def test_a_kernel_of_the_old_host_gives_way_to_the_disk() -> None:
    found = adapted({"PV_kernel": "/boot/guest-2.6.18", "PV_ramdisk": "/boot/guest-initrd"})
    assert (found.fields["PV_kernel"], found.fields["PV_ramdisk"]) == ("", "")
    assert found.fields["PV_bootloader"] == "pygrub"
    assert found.fields["other_config"][ORIGINAL + "PV_kernel"] == "/boot/guest-2.6.18"
    assert any("/boot/guest-2.6.18" in note for note in found.notes)


def test_the_small_linux_of_another_host_is_the_one_of_this_host() -> None:
    kernel = {"PV_kernel": "/there/vmlinuz", "PV_ramdisk": "/there/initramfs"}
    for own in (True, False):
        found = adapted(kernel, own=own)
        assert (found.fields["PV_kernel"], found.fields["PV_ramdisk"]) == ("/here/vmlinuz", "/here/initramfs")
        assert found.notes == ()


@pytest.mark.parametrize(
    ("loader", "after", "said"),
    [
        ("pygrub", "pygrub", False),
        ("/usr/bin/pygrub", "pygrub", False),
        ("eliloader", "eliloader", False),
        ("/opt/theirs/loader", "pygrub", True),
    ],
)
def test_boot_loaders(loader: str, after: str, said: bool) -> None:
    found = adapted({"PV_bootloader": loader, "is_a_template": True})
    assert found.fields["PV_bootloader"] == after
    assert bool(found.notes) == said


def test_what_is_said_of_machines_that_may_not_run() -> None:
    windows = adapted({**HVM, "platform": {"viridian": "true"}})
    assert "viostor" in windows.notes[0]
    assert "viostor" in adapted(HVM, system="windows").notes[0]
    assert adapted(HVM, system="debian").notes == ()
    uefi = {**HVM, "HVM_boot_params": {"firmware": "uefi", "order": "cd"}}
    assert "BOOTX64.EFI" in adapted(uefi).notes[0]
    assert adapted({**uefi, "is_a_template": True}).notes == ()
    assert "suspended" in adapted(HVM, suspended=True).notes[0]
    assert "VTPM" in adapted(HVM, left_out=["VTPM"]).notes[0]
    passed = adapted({**HVM, "other_config": {"pci": "0/0000:04:01.0", "kept": "1"}})
    assert passed.fields["other_config"] == {"kept": "1"}
    assert "0000:04:01.0" in passed.notes[0]
    assert "virtio" in adapted({"PV_bootloader": "pygrub"}).notes[0]


def test_our_own_machines_are_left_alone() -> None:
    fields = {"PV_args": "root=/dev/xvda console=hvc0", "PV_bootloader": "pygrub"}
    found = adapted(fields, own=True, suspended=True)
    assert found.fields["PV_args"] == fields["PV_args"]
    assert found.notes == ()


def test_the_rules_are_told_to_operators() -> None:
    page = Path(__file__).parents[3] / "docs" / "import-from-xenserver.md"
    text = page.read_text()
    assert [rule.name for rule in RULES if f"`{rule.name}`" not in text] == []


PV = {"HVM_boot_policy": "", "HVM_boot_params": {}, "PV_bootloader": "pygrub"}


@pytest.mark.parametrize("loader", [True, False])
async def test_what_cannot_start_is_said_at_import(host: World, loader: bool) -> None:
    sector = (b"\xeb\x63" + bytes(508) + b"\x55\xaa") if loader else bytes(510) + b"\x55\xaa"
    (vm,) = await import_bytes(host, xva(machine("paravirtual", {"0": sector + b"data"}, vm=PV)))
    row = host.row("VM", vm)
    notes = row["other_config"]["import-notes"]
    assert ("no boot loader" in notes) != loader
    messages = [it.record for it in host.stack.database.rows("message").values()]
    (body,) = (it["body"] for it in messages if it["obj_uuid"] == row["uuid"])
    assert notes in body


async def test_what_this_host_lacks_is_said_at_import(host: World) -> None:
    many = {"VCPUs_max": "4096", "VCPUs_at_startup": "4096"}
    (vm,) = await import_bytes(host, xva(machine("wide", vm=many)))
    assert "HOST_NOT_ENOUGH_PCPUS" in host.get("VM", vm, "other_config")["import-notes"]
    size = str(1 << 50)
    large = dict.fromkeys(("memory_static_max", "memory_dynamic_max", "memory_dynamic_min"), size)
    (vm,) = await import_bytes(host, xva(machine("large", vm=large)))
    assert "bytes of memory" in host.get("VM", vm, "other_config")["import-notes"]
    (vm,) = await import_bytes(host, xva(machine("plain")))
    assert "import-notes" not in host.get("VM", vm, "other_config")
