"""What the hypervisor is told, from a machine's record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskSource,
    DiskSpec,
    FirmwareBoot,
    KernelBoot,
    Scheduling,
    TapBackend,
)
from domzero.idl.records import Layout
from domzero.toolstack.stack import StackSettings
from domzero.toolstack.vm.consoles import location, protocols
from domzero.toolstack.vm.memory_needs import largest_memory, memory_needed, overhead_of
from domzero.toolstack.vm.specification import (
    SET_AT_BOOT,
    as_booted,
    boot_of,
    boot_record,
    disk_spec,
    machine_spec,
    nic_spec,
    read_boot_record,
)

VM = "OpaqueRef:vm"
MIB = 1 << 20
LAYOUT = Layout(GRAPH.classes["VM"])
PLAIN: dict[str, Any] = {
    **dict(zip(LAYOUT.names, LAYOUT.defaults, strict=True)),
    "uuid": "1111", "name_label": "m", "memory_static_max": 256 * MIB, "memory_dynamic_max": 128 * MIB,
    "VCPUs_max": 4, "VCPUs_at_startup": 2, "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "dc"},
    "domain_type": "hvm",
}  # fmt: skip
CD = DiskSpec(3, DiskKind.CD, DiskSource(Path("/cd.iso"), DiskFormat.RAW), read_only=True)


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings(tmp_path, "1", guest_kernel=Path("/k"), guest_ramdisk=Path("/r"))


def machine(**changes: Any) -> dict[str, Any]:
    return {**PLAIN, **changes}


def pv(**changes: Any) -> dict[str, Any]:
    return machine(domain_type="pv", HVM_boot_policy="", **changes)


def test_a_whole_machine(settings: StackSettings) -> None:
    record = machine(platform={"acpi": "1"}, other_config={"sim:step": "true", "colour": "red"})
    spec = machine_spec(VM, record, 7, (CD,), (), settings)
    assert (spec.uuid, spec.name, spec.domid) == ("1111", "m", 7)
    assert (spec.memory, spec.memory_target, spec.vcpus_max, spec.vcpus) == (256 * MIB, 128 * MIB, 4, 2)
    assert (spec.boot, spec.disks) == (FirmwareBoot("dc"), (CD,))
    assert (spec.platform, spec.faults) == ({"acpi": "1"}, {"step": "true"})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"memory_static_max": 0}, "VM_MEMORY_SIZE_TOO_LOW"),
        ({"VCPUs_max": 0}, "VM_NO_VCPUS"),
        ({"VCPUs_at_startup": 0}, "VM_NO_VCPUS"),
    ],
)
def test_machines_that_nothing_can_run(settings: StackSettings, changes: dict[str, int], code: str) -> None:
    with pytest.raises(ApiError) as error:
        machine_spec(VM, machine(**changes), 1, (), (), settings)
    assert error.value.description == (code, VM)


@pytest.mark.parametrize(
    ("record", "disks", "boot"),
    [
        (machine(HVM_boot_params={}), (), FirmwareBoot("cd")),
        (machine(HVM_boot_params={"order": "NX c"}), (), FirmwareBoot("nc")),
        (machine(HVM_boot_params={"order": "c", "firmware": "uefi"}), (), FirmwareBoot("c", uefi=True)),
        (machine(domain_type="unspecified"), (), FirmwareBoot("dc")),
        (pv(PV_bootloader="pygrub"), (), FirmwareBoot("c")),
        (pv(), (), FirmwareBoot("c")),
        (pv(PV_bootloader="eliloader"), (CD,), FirmwareBoot("dc")),
        (
            pv(PV_kernel="/k", PV_ramdisk="/r", PV_args="a", PV_legacy_args="b"),
            (),
            KernelBoot(Path("/k"), Path("/r"), "a b"),
        ),
        (pv(PV_kernel="/k"), (), KernelBoot(Path("/k"), None, "")),
    ],
)
def test_ways_to_boot(settings: StackSettings, record: dict[str, Any], disks: Any, boot: Any) -> None:
    assert boot_of(VM, record, disks, settings) == boot


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (pv(PV_bootloader="lilo"), "UNKNOWN_BOOTLOADER"),
        (pv(PV_bootloader="eliloader"), "BOOTLOADER_FAILED"),
        (pv(PV_kernel="/etc/passwd"), "VALUE_NOT_SUPPORTED"),
        (pv(PV_kernel="/k", PV_ramdisk="/etc/shadow"), "VALUE_NOT_SUPPORTED"),
    ],
)
def test_ways_that_are_refused(settings: StackSettings, record: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError) as error:
        boot_of(VM, record, (), settings)
    assert error.value.code == code


def test_kernels_of_the_guest_directory_may_be_booted_but_nothing_beside_it(settings: StackSettings) -> None:
    guest = settings.state_dir / "guest"
    guest.mkdir()
    (settings.state_dir / "secret").touch()
    (guest / "link").symlink_to(settings.state_dir / "secret")
    inside = boot_of(VM, pv(PV_kernel=str(guest / "vmlinuz")), (), settings)
    assert isinstance(inside, KernelBoot)
    assert inside.kernel == (guest / "vmlinuz").resolve()
    for escape in (guest / ".." / "secret", guest / "link"):
        with pytest.raises(ApiError):
            boot_of(VM, pv(PV_kernel=str(escape)), (), settings)


@pytest.mark.parametrize(
    ("params", "scheduling"),
    [
        ({}, Scheduling()),
        ({"weight": "512", "mask": "0,3", "cap": "50"}, Scheduling(512, frozenset({0, 3}))),
        ({"mask": " 1, 2"}, Scheduling(256, frozenset({1, 2}))),
        ({"weight": "0", "mask": "1,x"}, Scheduling()),
        ({"weight": "65536", "mask": ","}, Scheduling()),
        ({"weight": "-5", "mask": "9" * 5000}, Scheduling()),
    ],
)
def test_shares_of_processors(settings: StackSettings, params: dict[str, str], scheduling: Scheduling) -> None:
    """Anybody who may change the machine writes these: what cannot be read asks for nothing."""
    spec = machine_spec(VM, machine(VCPUs_params=params), 1, (), (), settings)
    assert spec.scheduling == scheduling


def test_drives_and_cards() -> None:
    drive = {
        "userdevice": "xvdd", "type": "Disk", "mode": "RW", "bootable": True, "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }  # fmt: skip
    assert disk_spec(drive, CD.source, disk_read_only=False) == DiskSpec(3, DiskKind.DISK, CD.source, bootable=True)
    assert disk_spec(drive, CD.source, disk_read_only=True).read_only
    assert disk_spec({**drive, "mode": "RO"}, CD.source, disk_read_only=False).read_only
    empty = disk_spec({**drive, "type": "CD", "userdevice": "3"}, None, disk_read_only=False)
    assert (empty.kind, empty.source, empty.read_only) == (DiskKind.CD, None, True)
    with pytest.raises(ApiError):
        disk_spec({**drive, "userdevice": "99"}, None, disk_read_only=False)
    card = nic_spec({"device": "2", "MAC": "AA:BB:CC:00:11:22"}, 1500, TapBackend("t"))
    assert (card.slot, card.mac) == (2, "aa:bb:cc:00:11:22")
    with pytest.raises(ApiError):
        nic_spec({"device": "eth0", "MAC": ""}, 1500, TapBackend("t"))


def test_a_boot_record_reads_back() -> None:
    record = machine(tags=("a", "b"), other_config={"k": "v"})
    read = read_boot_record(boot_record(record), machine(name_label="later"))
    assert (read["name_label"], read["tags"], read["other_config"]) == ("m", ("a", "b"), {"k": "v"})
    assert set(read) == set(record)


@pytest.mark.parametrize("text", ["", "rubbish", "[]", '{"no_such_field": 1, "uuid": "1111"}'])
def test_boot_records_from_elsewhere(text: str) -> None:
    assert read_boot_record(text, PLAIN) == PLAIN


def test_what_a_saved_domain_was_built_with_stays() -> None:
    then = machine(VCPUs_at_startup=3, platform={"acpi": "0"})
    now = machine(name_label="later", last_booted_record=boot_record(then))
    booted = as_booted(now)
    assert (booted["VCPUs_at_startup"], booted["platform"], booted["name_label"]) == (3, {"acpi": "0"}, "later")
    assert set(SET_AT_BOOT) <= set(LAYOUT.names)


def test_the_most_memory_that_fits() -> None:
    for total in (0, 10 * MIB, 100 * MIB, 1 << 30, 3 << 40):
        memory = largest_memory(PLAIN, total, approximate=False)
        assert memory % MIB == 0
        if memory:
            assert memory + overhead_of(memory, 4, 1.0) <= total < memory + MIB + overhead_of(memory + MIB, 4, 1.0)
    assert memory_needed(PLAIN) == 128 * MIB + overhead_of(256 * MIB, 4, 1.0)
    assert overhead_of(256 * MIB, 4, 4.0) > overhead_of(256 * MIB, 4, 1.0)


def test_console_addresses() -> None:
    assert location("192.0.2.1:8443", "OpaqueRef:c") == "https://192.0.2.1:8443/console?ref=OpaqueRef:c"
    assert location("[2001:db8::1]", "OpaqueRef:c") == "https://[2001:db8::1]/console?ref=OpaqueRef:c"
    no_screen = pv(other_config={"disable_pv_vnc": "1"})
    assert protocols(no_screen, hvm=False) == ("vt100",)
    assert protocols(no_screen, hvm=True) == ("rfb", "vt100")
