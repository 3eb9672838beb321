"""The command line is a pure function: golden pieces and properties, no process."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import arguments, devices, images, names, places
from domzero.host.hypervisor.qemu.arguments import Descriptors, Launch, command_line, memory_size
from domzero.host.hypervisor.qemu.files import DomainFiles
from domzero.host.hypervisor.qemu.images import OpenedImage
from domzero.host.hypervisor.qemu.launch import check
from domzero.host.hypervisor.qemu.places import Descriptor, Label
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskSource,
    DiskSpec,
    Extent,
    FirmwareBoot,
    KernelBoot,
    MachineSpec,
    NicSpec,
    TapBackend,
    UserBackend,
)

KIB = 1024
MIB = 1 << 20

disks = st.lists(
    st.builds(DiskSpec, st.integers(0, 15), st.sampled_from(DiskKind), st.none(), st.booleans(), st.booleans()),
    unique_by=lambda disk: disk.slot,
    max_size=16,
).map(tuple)
nics = st.lists(
    st.builds(
        NicSpec,
        st.integers(0, 6),
        st.just("52:54:00:00:00:01"),
        st.sampled_from((1400, 1500, 9000)),
        st.one_of(st.just(UserBackend()), st.just(TapBackend("tap0"))),
    ),
    unique_by=lambda nic: nic.slot,
    max_size=7,
).map(tuple)
boots = st.one_of(
    st.builds(FirmwareBoot, st.text("cdnx", max_size=4)),
    st.builds(KernelBoot, st.just(Path("/k")), st.sampled_from((None, Path("/r"))), st.text(max_size=20)),
)
machines = st.builds(
    MachineSpec,
    uuid=st.just("5c8f9a34-6d0c-4c19-9a4e-000000000001"),
    name=st.text(),
    domid=st.integers(1, 1 << 20),
    memory=st.integers(16 * MIB, 1 << 40),
    memory_target=st.just(0),
    vcpus_max=st.integers(1, 32),
    vcpus=st.just(1),
    boot=boots,
    disks=disks,
    nics=nics,
    platform=st.dictionaries(st.sampled_from(("timeoffset", "cores-per-socket", "viridian")), st.text(max_size=9)),
)


def launch(spec: MachineSpec, **changes: Any) -> Launch:
    images = {
        disk.slot: OpenedImage(
            names.image(disk.slot, disk.slot + 1),
            {"driver": "raw", "node-name": names.image(disk.slot, disk.slot + 1)},
            [Descriptor(30 + disk.slot, disk.slot + 1, Label(disk.slot, True, (1, 2)))],
        )
        for disk in spec.disks
        if disk.kind is DiskKind.DISK
    }
    taps = {nic.slot: 50 + nic.slot for nic in spec.nics if isinstance(nic.backend, TapBackend)}
    plan = Launch(
        spec=spec,
        files=DomainFiles(Path("/run/x/7")),
        binary="qemu",
        accelerator="tcg",
        machine="q35",
        memory=64 * MIB,
        uid=1234,
        descriptors=Descriptors(11, 12, 13, 14, taps),
        images=images,
        now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return replace(plan, **changes)


def spec(**changes: Any) -> MachineSpec:
    values: dict[str, Any] = {
        "uuid": "5c8f9a34-6d0c-4c19-9a4e-000000000001",
        "name": "x",
        "domid": 7,
        "memory": 64 * MIB,
        "memory_target": 64 * MIB,
        "vcpus_max": 4,
        "vcpus": 2,
        "boot": FirmwareBoot("cd"),
    }
    return MachineSpec(**{**values, **changes})


def options(argv: list[str], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == name]


@given(machines)
def test_every_machine_fits_the_board(machine: MachineSpec) -> None:
    argv = command_line(launch(machine))
    plugged = [json.loads(value) for value in options(argv, "-device")]
    ids = [device["id"] for device in plugged]
    assert len(set(ids)) == len(ids)
    places = Counter((d["bus"], d["addr"]) for d in plugged if "addr" in d)
    assert max(places.values()) == 1
    buses = {"pcie.0", "channels.0", "usb.0", "scsi.0", *ids}
    assert {device["bus"] for device in plugged if "bus" in device} <= buses
    indexes = [device["bootindex"] for device in plugged if "bootindex" in device]
    assert sorted(indexes) == list(range(1, len(indexes) + 1))


@given(machines)
def test_a_strangers_text_stays_out_of_options(machine: MachineSpec) -> None:
    named = replace(machine, name="a,b=c -chardev", platform={"timeoffset": "0,x=y", "cores-per-socket": "²"})
    argv = command_line(launch(named))
    assert named.name not in " ".join(argv)
    assert options(argv, "-rtc") == ["base=utc,clock=host"]
    endless = replace(machine, platform={"timeoffset": "1" * 5000, "cores-per-socket": "1" * 5000})
    assert ",cores=1," in options(command_line(launch(endless)), "-smp")[0]
    assert all(isinstance(argument, str) for argument in argv)


def test_confinement() -> None:
    argv = command_line(launch(spec()))
    assert options(argv, "-sandbox") == ["on,obsolete=deny,spawn=deny,resourcecontrol=deny"]
    assert options(argv, "-runas") == ["1234:1234"]
    assert options(argv, "-chroot") == ["/run/x/7/root"]
    argv = command_line(launch(spec(), uid=None))
    assert options(argv, "-sandbox") == ["on,obsolete=deny,spawn=deny,resourcecontrol=deny,elevateprivileges=deny"]
    assert "-runas" not in argv


def test_lifecycle_and_boot() -> None:
    argv = command_line(launch(spec()))
    assert "-S" in argv
    assert "-incoming" not in argv
    assert options(argv, "-action") == ["reboot=shutdown,shutdown=poweroff,panic=shutdown"]
    kept = command_line(launch(spec(keep_crashed=True)))
    assert options(kept, "-action") == ["reboot=shutdown,shutdown=poweroff,panic=pause"]
    assert options(argv, "-smp") == ["cpus=2,maxcpus=4,sockets=4,cores=1,threads=1"]
    assert options(argv, "-m") == ["size=65536K"]
    assert options(command_line(launch(spec(), incoming=True)), "-incoming") == ["defer"]
    kernel = KernelBoot(Path("/k,1"), Path("/r"), "a,b")
    argv = command_line(launch(spec(boot=kernel)))
    assert [options(argv, name) for name in ("-kernel", "-initrd", "-append")] == [["/k,1"], ["/r"], ["a,b"]]


def test_clock_and_topology_follow_the_platform() -> None:
    platform = {"timeoffset": "-3600", "cores-per-socket": "2"}
    argv = command_line(launch(spec(platform=platform)))
    assert options(argv, "-rtc") == ["base=2026-01-02T02:04:05,clock=host"]
    assert options(argv, "-smp") == ["cpus=2,maxcpus=4,sockets=2,cores=2,threads=1"]
    kvm = launch(spec(platform={"viridian": "true"}), accelerator="kvm")
    assert options(command_line(kvm), "-accel") == ["kvm"]
    assert options(command_line(kvm), "-cpu")[0].startswith("host,hv-")


def test_paths_with_commas_are_escaped() -> None:
    argv = command_line(launch(spec(), files=DomainFiles(Path("/run/a,b/7"))))
    assert options(argv, "-vnc") == ["unix:/run/a,,b/7/vnc.sock,share=ignore"]
    assert any("logfile=/run/a,,b/7/serial.log,logappend=on" in value for value in options(argv, "-chardev"))


def test_boot_order() -> None:
    drives = (
        DiskSpec(0, DiskKind.DISK, None),
        DiskSpec(2, DiskKind.DISK, None, bootable=True),
        DiskSpec(3, DiskKind.CD, None),
    )
    card = NicSpec(1, "52:54:00:00:00:01", 1500, UserBackend())
    machine = spec(disks=drives, nics=(card,), boot=FirmwareBoot("dcnd"))
    assert arguments.boot_indexes(machine) == {"disk-3": 1, "disk-2": 2, "disk-0": 3, "nic-1": 4}
    assert "romfile" not in devices.nic_device(card, 4)
    assert devices.nic_device(card)["romfile"] == ""


@given(st.integers(1 << 24, 1 << 44))
def test_memory_size(asked: int) -> None:
    size = memory_size(asked, "tcg", (7, 2, 22))
    assert size % (8 * KIB) == 0
    assert size % (256 * KIB) != 0
    assert 0 <= asked - size < 16 * KIB
    for accelerator, version in (("kvm", (7, 2)), ("tcg", (9, 0, 1)), ("tcg", (10, 0))):
        assert memory_size(asked, accelerator, version) == asked - asked % (8 * KIB)


def described(chain: list[DiskSource], driver: str = "file", **how: bool) -> dict[str, object]:
    storage: list[dict[str, object]] = [
        {"driver": driver, "filename": f"/dev/fdset/{5 + n}"} for n in range(len(chain))
    ]
    return images.blockdev(chain, storage, 0, 5, **how)


def test_blockdev_names_every_layer() -> None:
    chain = [DiskSource(Path(name), DiskFormat.QCOW2) for name in ("top", "middle")]
    chain.append(DiskSource(Path("base"), DiskFormat.RAW))

    def file(number: int, **more: object) -> dict[str, object]:
        return {"driver": "file", "filename": f"/dev/fdset/{number}", **more}

    base = {"driver": "raw", "node-name": "layer-0-7", "read-only": True, "file": file(7)}
    middle = {"driver": "qcow2", "node-name": "layer-0-6", "read-only": True, "file": file(6), "backing": base}
    assert described(chain, writable=True) == {
        "node-name": "image-0-5",
        "driver": "qcow2",
        "read-only": False,
        "discard": "unmap",
        "file": file(5, discard="unmap"),  # whether it is read-only follows its parent, also when that is reopened
        "backing": middle,
    }
    alone = described(chain[:1], "host_device", writable=False)
    assert alone["file"] == {"driver": "host_device", "filename": "/dev/fdset/5"}
    assert alone["backing"] is None  # said, so that no header is asked


def test_extents() -> None:
    extent = Extent(Path("/dev/sdz"), 1 << 20, 8 << 20)
    raw = described([DiskSource(extent, DiskFormat.RAW)], writable=True)
    assert (raw["driver"], raw["offset"], raw["size"]) == ("raw", 1 << 20, 8 << 20)
    qcow2 = described([DiskSource(extent, DiskFormat.QCOW2)], writable=False)
    assert "offset" not in qcow2
    inner = qcow2["file"]
    assert isinstance(inner, dict)
    assert (inner["driver"], inner["node-name"], inner["offset"], inner["size"]) == (
        "raw",
        "part-0-5",
        1 << 20,
        8 << 20,
    )
    for offset, length in ((-512, 512), (0, 0), (0, 513), (1, 512)):
        with pytest.raises(HypervisorError, match="sectors"):
            described([DiskSource(Extent(Path("/dev/sdz"), offset, length), DiskFormat.RAW)], writable=True)


def test_drivers_of_files_and_devices() -> None:
    assert places.file_driver(stat.S_IFREG | 0o600, 0) == "file"
    assert places.file_driver(stat.S_IFBLK, os.makedev(8, 1)) == "host_device"
    assert places.file_driver(stat.S_IFBLK, os.makedev(11, 0)) == "host_cdrom"
    for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFSOCK):
        assert places.file_driver(kind, 0) is None


@given(st.integers(0, 15), st.booleans(), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_labels_round_trip(slot: int, writable: bool, device: int, inode: int) -> None:
    label = places.Label(slot, writable, (device, inode))
    assert places.Label.parse(str(label)) == label
    assert "," not in str(label)
    for other in (None, "", f"{label} ", f"x{label}", 5):
        assert places.Label.parse(other) is None


def test_backing_of(tmp_path: Path) -> None:
    repository, outside = tmp_path / "sr", tmp_path / "outside"
    repository.mkdir()
    for path in (outside, repository / "base", repository / "top"):
        path.touch()
    (repository / "link").symlink_to(outside)
    top = repository / "top"

    def find(**info: object) -> DiskSource | None:
        return images.backing_of({key.replace("_", "-"): value for key, value in info.items()}, top, repository)

    assert find() is None
    base = DiskSource(repository / "base", DiskFormat.RAW)
    assert find(backing_filename="base", backing_filename_format="raw") == base
    assert find(backing_filename=str(base.path), backing_filename_format="raw") == base
    for name in ("../outside", str(outside), "link", "json:{}", "nbd://host/x", "/dev/zero", "missing", ""):
        with pytest.raises(HypervisorError, match="repository"):
            find(backing_filename=name, backing_filename_format="raw")
    for guess in (None, "auto", "vmdk"):
        with pytest.raises(HypervisorError, match="format"):
            find(backing_filename="base", backing_filename_format=guess)
    with pytest.raises(HypervisorError, match="data file"):
        find(format_specific={"type": "qcow2", "data": {"data-file": "/etc/shadow"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"domid": 0},
        {"memory": 0},
        {"vcpus": 5},
        {"vcpus": 0},
        {"disks": (DiskSpec(16, DiskKind.DISK, None),)},
        {"disks": (DiskSpec(1, DiskKind.CD, None), DiskSpec(1, DiskKind.CD, None))},
        {"nics": (NicSpec(7, "", 1500, UserBackend()),)},
    ],
)
def test_impossible_machines_are_refused(changes: dict[str, Any]) -> None:
    check(spec())
    with pytest.raises(HypervisorError):
        check(spec(**changes))
