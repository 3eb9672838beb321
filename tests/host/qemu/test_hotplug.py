"""Disks, cards, processors and memory of a running guest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import (
    GuestNotRespondingError,
    HypervisorError,
)
from domzero.host.hypervisor.qemu.driver import Limits
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskSource,
    DiskSpec,
    KernelBoot,
    NicSpec,
    TapBackend,
    UserBackend,
)
from domzero.host.network import ethtool
from domzero.host.process import ProcessError, run
from tests.host.qemu.conftest import MIB, USERS, Guest, Machine, guest_spec
from tests.host.qemu.guest import until

pytestmark = pytest.mark.qemu


async def test_disk_and_medium_hotplug(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    base = machine.image("base", "8M")
    overlay = machine.image("overlay", "-b", str(base.path), "-F", "qcow2", "8M")
    await hypervisor.plug_disk(domid, DiskSpec(1, DiskKind.DISK, overlay))
    await console.eventually("test -b /dev/vdb")
    await console.run("echo hello | dd of=/dev/vdb conv=fsync 2>/dev/null")
    with pytest.raises(HypervisorError, match="slot 1 already"):
        await hypervisor.plug_disk(domid, DiskSpec(1, DiskKind.DISK, machine.image("other", "8M")))
    with pytest.raises(HypervisorError, match=r"disk 2 .* in use by another"):
        await hypervisor.plug_disk(domid, DiskSpec(2, DiskKind.DISK, overlay))
    with pytest.raises(HypervisorError, match="slot 2"):
        await hypervisor.unplug_disk(domid, 2)
    await hypervisor.unplug_disk(domid, 1)
    await console.eventually("test ! -b /dev/vdb")
    await hypervisor.plug_disk(domid, DiskSpec(1, DiskKind.DISK, overlay, read_only=True))
    await console.eventually("test -b /dev/vdb")
    assert await console.run("head -c 5 /dev/vdb") == "hello"
    assert await console.run("cat /sys/block/vdb/ro") == "1"

    disc = machine.image("disc.iso", "1M", format=DiskFormat.RAW)
    disc.path.write_bytes(b"disc one".ljust(1 << 20, b"\0"))
    await hypervisor.change_medium(domid, 3, disc)
    await console.eventually("head -c 8 /dev/sr0")
    assert (await console.run("head -c 8 /dev/sr0")).endswith("disc one")
    await hypervisor.change_medium(domid, 3, None)
    await console.eventually("! head -c 8 /dev/sr0 2>/dev/null")


async def test_what_no_driver_takes_is_taken_out_again(machine: Machine, guest: Guest) -> None:
    """The file is free then, and the slot as well."""
    await machine.hypervisor.close()
    machine.hypervisor = machine.driver(Limits(guest=5, plug=1))
    await machine.hypervisor.open(machine.events)
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    disk = DiskSpec(1, DiskKind.DISK, machine.image("lonely", "8M"))
    card = NicSpec(1, "52:54:00:00:00:09", 1500, UserBackend())
    await console.run("echo 0 > /sys/bus/virtio/drivers_autoprobe")
    with pytest.raises(GuestNotRespondingError, match="disk in slot 1 in 1 seconds"):
        await hypervisor.plug_disk(domid, disk)
    with pytest.raises(GuestNotRespondingError, match="network card 1 in 1 seconds"):
        await hypervisor.plug_nic(domid, card)
    assert disk.source is not None
    await run(["qemu-img", "resize", "-q", "-f", "qcow2", disk.source.path, "16M"])  # refused while it is open
    await console.run("echo 1 > /sys/bus/virtio/drivers_autoprobe")
    await hypervisor.close()
    machine.hypervisor = hypervisor = machine.driver()  # which is patient: the guest is slow where others are busy
    await hypervisor.open(machine.events)
    await hypervisor.plug_disk(domid, disk)
    await hypervisor.plug_nic(domid, card)
    await console.eventually("test -b /dev/vdb -a -e /sys/class/net/eth0")


async def test_slots_behind_the_bridge(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    for slot in (6, 15):
        await hypervisor.plug_disk(domid, DiskSpec(slot, DiskKind.DISK, machine.image(f"disk{slot}", "8M")))
    for slot in (2, 6):
        await hypervisor.plug_nic(domid, NicSpec(slot, f"52:54:00:00:00:0{slot}", 1500, UserBackend()))
    await console.eventually("test -b /dev/vdb -a -b /dev/vdc -a -e /sys/class/net/eth0 -a -e /sys/class/net/eth1")
    for slot in (6, 15):
        await hypervisor.unplug_disk(domid, slot)
    for slot in (2, 6):
        await hypervisor.unplug_nic(domid, slot)
    await console.eventually("test ! -b /dev/vdb -a ! -b /dev/vdc -a ! -e /sys/class/net/eth0")


async def test_live_snapshot(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    await console.run("echo before | dd of=/dev/vda conv=fsync 2>/dev/null")
    overlay = machine.image("snapshot", "-b", str(guest.disk.path), "-F", "qcow2", "16M")
    await hypervisor.switch_disk(domid, 0, overlay)
    frozen = guest.disk.path.read_bytes()
    await console.run("echo after! | dd of=/dev/vda conv=fsync 2>/dev/null; sync")
    assert await console.run("echo 3 > /proc/sys/vm/drop_caches; head -c 6 /dev/vda") == "after!"
    assert guest.disk.path.read_bytes() == frozen
    await run(["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", guest.disk.path])  # nothing of a lock is left
    with pytest.raises(ProcessError, match="lock"):
        await run(["qemu-io", "-f", "qcow2", "-c", "write 0 512", overlay.path])
    statistics = await hypervisor.statistics(domid)
    assert statistics.disks[0].written_bytes > 0
    await hypervisor.unplug_disk(domid, 0)
    for source in (overlay, guest.disk):  # QEMU has let go of both: they can be opened again for writing
        await hypervisor.plug_disk(domid, DiskSpec(0, DiskKind.DISK, source))
        await hypervisor.unplug_disk(domid, 0)


async def test_snapshot_of_a_paused_guest(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    await hypervisor.pause(domid)
    overlay = machine.image("snapshot", "-b", str(guest.disk.path), "-F", "qcow2", "16M")
    await hypervisor.switch_disk(domid, 0, overlay)
    await hypervisor.unpause(domid)
    await console.run("echo after! | dd of=/dev/vda conv=fsync 2>/dev/null; sync")
    await run(["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", guest.disk.path])


async def test_forced_unplug_frees_the_files(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    second = machine.image("second", "8M")
    await hypervisor.plug_nic(domid, NicSpec(0, "52:54:00:00:00:01", 1500, UserBackend()))
    await hypervisor.plug_disk(domid, DiskSpec(1, DiskKind.DISK, second))
    await guest.console.eventually("test -b /dev/vdb")
    await hypervisor.pause(domid)  # a paused guest agrees to nothing
    machine_limits = Limits(guest=0.2)
    await hypervisor.close()
    machine.hypervisor = hypervisor = machine.driver(machine_limits)
    await hypervisor.open(machine.events)
    with pytest.raises(GuestNotRespondingError):
        await hypervisor.unplug_disk(domid, 1)
    with pytest.raises(GuestNotRespondingError):
        await hypervisor.unplug_nic(domid, 0)
    assert 1 in (await hypervisor.statistics(domid)).disks
    await hypervisor.unplug_disk(domid, 1, force=True)
    assert 1 not in (await hypervisor.statistics(domid)).disks
    await hypervisor.unplug_nic(domid, 0, force=True)
    await hypervisor.plug_disk(domid, DiskSpec(2, DiskKind.DISK, second))


async def test_network_card(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    await hypervisor.plug_nic(domid, NicSpec(1, "52:54:00:12:34:56", 1400, UserBackend()))
    await console.eventually("test -e /sys/class/net/eth0/address")
    assert await console.run("cat /sys/class/net/eth0/address") == "52:54:00:12:34:56"
    assert await console.run("cat /sys/class/net/eth0/mtu") == "1400"
    with pytest.raises(HypervisorError, match="network card 1 already"):
        await hypervisor.plug_nic(domid, NicSpec(1, "52:54:00:12:34:56", 1400, UserBackend()))
    with pytest.raises(HypervisorError, match="network card 2"):
        await hypervisor.unplug_nic(domid, 2)
    await console.run("ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up")
    await console.eventually("ping -c 1 -W 1 10.0.2.2")
    await hypervisor.unplug_nic(domid, 1)
    await console.eventually("test ! -e /sys/class/net/eth0")
    await hypervisor.plug_nic(domid, NicSpec(1, "52:54:00:12:34:57", 1500, UserBackend()))


async def test_processors_memory_and_counters(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    assert len((await hypervisor.statistics(domid)).cpu_seconds) == 1
    await hypervisor.set_vcpus(domid, 2)
    await console.eventually("test -e /sys/devices/system/cpu/cpu1")
    await console.run("echo 1 > /sys/devices/system/cpu/cpu1/online; test $(nproc) = 2")
    statistics = await hypervisor.statistics(domid)
    assert len(statistics.cpu_seconds) == 2
    assert statistics.cpu_seconds[0] > 0
    assert len(statistics.cpu_numbers) == 2
    assert set(statistics.cpu_numbers) <= set(range(os.cpu_count() or 1))
    await hypervisor.set_vcpus(domid, 1)
    await console.eventually("test ! -e /sys/devices/system/cpu/cpu1")
    if hypervisor.capabilities().accelerator == "tcg":
        with pytest.raises(HypervisorError, match="again"):
            await hypervisor.set_vcpus(domid, 2)
    with pytest.raises(HypervisorError):
        await hypervisor.set_vcpus(domid, 3)
    await hypervisor.set_memory_target(domid, 96 * MIB)

    async def is_small() -> bool:
        return (await hypervisor.statistics(domid)).memory_actual == 96 * MIB

    await until(is_small)


@pytest.mark.root
@pytest.mark.skipif(USERS is None, reason="a tap device needs root")
async def test_tap(machine: Machine, boot: KernelBoot, guest: Guest) -> None:
    interface = f"dztap{os.getpid() % 100000}"
    await run(["ip", "tuntap", "add", interface, "mode", "tap", "vnet_hdr"])
    try:
        carrier = Path("/sys/class/net") / interface
        card = NicSpec(0, "52:54:00:00:00:01", 1500, TapBackend(interface))
        await machine.hypervisor.plug_nic(guest.domid, card)
        await run(["ip", "link", "set", interface, "up"])
        assert (carrier / "carrier").read_text().strip() == "1"
        busy = replace(guest_spec(boot, machine.image("another", "1M")), nics=(card,))
        with pytest.raises(HypervisorError, match="busy"):
            await machine.hypervisor.start(busy)
        await machine.hypervisor.unplug_nic(guest.domid, 0)
        assert (carrier / "carrier").read_text().strip() == "0"
        await machine.hypervisor.start(busy, paused=True)
        assert (carrier / "carrier").read_text().strip() == "1"
        with pytest.raises(HypervisorError, match="no tap"):
            await machine.hypervisor.plug_nic(guest.domid, NicSpec(1, card.mac, 1500, TapBackend("dzmissing")))
    finally:
        await run(["ip", "link", "delete", interface])


@pytest.mark.root
@pytest.mark.skipif(USERS is None, reason="a tap device needs root")
@pytest.mark.parametrize("refused", [(), ("tso",), ("tx",)])
async def test_a_guest_does_not_turn_refused_offloads_on(
    machine: Machine, guest: Guest, refused: tuple[str, ...]
) -> None:
    """Its driver has chosen when the plug is acknowledged."""
    interface = f"dztap{os.getpid() % 100000}"
    await run(["ip", "tuntap", "add", interface, "mode", "tap", "vnet_hdr"])
    try:
        ethtool.assign(interface, dict.fromkeys(refused, "off"))
        backend = TapBackend(interface, refused=frozenset(refused))
        await machine.hypervisor.plug_nic(guest.domid, NicSpec(0, "52:54:00:00:00:01", 1500, backend))
        settings = ethtool.read(interface)
        assert settings["tx"] == ("off" if refused == ("tx",) else "on")
        assert settings["tso"] == ("off" if refused else "on")
    finally:
        await run(["ip", "link", "delete", interface])


@pytest.mark.root
@pytest.mark.skipif(USERS is None, reason="a loop device needs root")
async def test_block_device(machine: Machine, guest: Guest) -> None:
    image = machine.image("backing", "4M", format=DiskFormat.RAW)
    device = (await run(["losetup", "--find", "--show", image.path])).stdout.decode().strip()
    try:
        source = DiskSource(Path(device), DiskFormat.RAW)
        await machine.hypervisor.plug_disk(guest.domid, DiskSpec(4, DiskKind.DISK, source))
        await guest.console.eventually("test -b /dev/vdb")
        await guest.console.run("echo written | dd of=/dev/vdb conv=fsync 2>/dev/null")
        await machine.hypervisor.unplug_disk(guest.domid, 4)
    finally:
        await run(["losetup", "--detach", device])
    assert image.path.read_bytes().startswith(b"written\n")
    pipe = machine.directory / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(HypervisorError, match="neither"):
        await machine.hypervisor.plug_disk(
            guest.domid, DiskSpec(4, DiskKind.DISK, DiskSource(pipe, DiskFormat.RAW), read_only=True)
        )
