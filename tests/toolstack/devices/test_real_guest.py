"""Devices of real machines: what the API says has happened, the guest has seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from domzero.host.guest_image.console import statements, ticks, values
from domzero.toolstack.storage.repositories import attached
from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def qemu_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture(scope="module")
def api(qemu_host: InProcessHost) -> Iterator[Any]:
    session = login(qemu_host.url)
    yield session.xenapi
    session.xenapi.session.logout()


@pytest.fixture(scope="module")
def guest(qemu_host: InProcessHost, api: Any) -> Iterator[Guest]:
    """A running machine that counts aloud."""
    running = make_machine(qemu_host, api, "devices", ticking=True)
    api.VM.start(running.vm, False, False)
    running.wait_until_up()
    yield running
    remove_machine(api, running.vm)


def make_disk(api: Any, size: int) -> str:
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    return str(api.VDI.create({
        "name_label": "extra", "name_description": "", "SR": sr, "virtual_size": str(size), "type": "user",
        "sharable": False, "read_only": False, "other_config": {},
    }))  # fmt: skip


def make_drive(api: Any, vm: str, vdi: str) -> str:
    return str(api.VBD.create({
        "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW", "type": "Disk",
        "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    }))  # fmt: skip


def says(guest: Guest, words: str) -> None:
    """Wait until the guest has said something that begins with these words."""
    guest.wait_for(lambda log: any(said.startswith(words) for said in statements(log)), words)


def test_a_disk_comes_and_goes(api: Any, guest: Guest) -> None:
    vdi = make_disk(api, 96 * MIB)
    vbd = make_drive(api, guest.vm, vdi)
    api.VBD.plug(vbd)
    says(guest, f"disk vdb added bytes={96 * MIB}")
    assert api.VBD.get_currently_attached(vbd)
    api.VBD.unplug(vbd)
    says(guest, "disk vdb removed")
    assert not api.VBD.get_currently_attached(vbd)
    api.VBD.destroy(vbd)
    api.VDI.destroy(vdi)


def test_a_disk_grows_before_the_guests_eyes(api: Any, guest: Guest) -> None:
    vdi = make_disk(api, 112 * MIB)
    vbd = make_drive(api, guest.vm, vdi)
    api.VBD.plug(vbd)
    says(guest, f"disk vdb added bytes={112 * MIB}")
    api.VDI.resize_online(vdi, str(160 * MIB))
    says(guest, f"disk vdb resized bytes={160 * MIB}")
    assert api.VDI.get_virtual_size(vdi) == str(160 * MIB)
    api.VBD.unplug(vbd)
    says(guest, "disk vdb removed")
    assert api.VDI.get_virtual_size(vdi) == str(160 * MIB)
    api.VBD.destroy(vbd)
    api.VDI.destroy(vdi)


def test_a_drive_is_limited_while_it_is_used(qemu_host: InProcessHost, api: Any, guest: Guest) -> None:
    (vbd,) = api.VM.get_VBDs(guest.vm)
    api.VBD.set_qos_algorithm_params(vbd, {"bps": str(4 * MIB), "iops": "500"})
    api.VBD.set_qos_algorithm_type(vbd, "ratelimit")
    api.VBD.set_qos_algorithm_type(vbd, "ionice")
    before = max(ticks(guest.serial()))
    guest.ticks_reach(before + 2)
    api.VBD.set_qos_algorithm_type(vbd, "")


def test_layers_are_merged_under_a_running_guest(qemu_host: InProcessHost, api: Any, guest: Guest) -> None:
    """The chain that deleted snapshots leave gets short again; the guest goes on, and its disk is whole afterwards."""
    (vbd,) = api.VM.get_VBDs(guest.vm)
    vdi = api.VBD.get_VDI(vbd)
    for _ in range(3):
        api.VDI.destroy(api.VDI.snapshot(vdi, {}))
    long = chain_length(qemu_host, api, vdi)
    before = max(ticks(guest.serial()))
    deadline = time.monotonic() + 150
    while chain_length(qemu_host, api, vdi) > 2:
        assert time.monotonic() < deadline, f"the chain still has {chain_length(qemu_host, api, vdi)} of {long} layers"
        time.sleep(0.2)
    guest.ticks_reach(before + 4)
    (snapshot,) = [api.VDI.snapshot(vdi, {})]
    other = make_machine(qemu_host, api, "merged")
    (drive,) = api.VM.get_VBDs(other.vm)
    own = api.VBD.get_VDI(drive)
    api.VBD.destroy(drive)
    api.VDI.destroy(own)
    make_drive(api, other.vm, snapshot)
    api.VM.start(other.vm, False, False)
    assert other.boots() == 2
    remove_machine(api, other.vm)


def chain_length(host: InProcessHost, api: Any, vdi: str) -> int:
    """How many files a machine that starts with the disk would have to open."""
    stack = host.daemon.stack
    driver, repository = attached(stack, api.VDI.get_SR(vdi))
    source = host.run(driver.source(repository, api.VDI.get_location(vdi)))
    return 1 + len(source.backing or ())


def test_a_card_comes_and_goes(api: Any, guest: Guest) -> None:
    vif = api.VIF.create({
        "device": "0", "network": api.network.get_all()[0], "VM": guest.vm, "MAC": "", "MTU": "1500",
        "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    api.VIF.plug(vif)
    says(guest, f"nic eth0 added mac={api.VIF.get_MAC(vif)}")
    api.VIF.unplug(vif)
    says(guest, "nic eth0 removed")
    api.VIF.destroy(vif)


def test_a_running_guests_disk_is_captured_and_can_be_booted(qemu_host: InProcessHost, api: Any, guest: Guest) -> None:
    """The guest goes on counting; what was captured is a file system that has been booted from once."""
    (vbd,) = api.VM.get_VBDs(guest.vm)
    before = guest.ticks_reach(1)[-1]
    snapshot = api.VDI.snapshot(api.VBD.get_VDI(vbd), {})
    clone = api.VDI.clone(api.VBD.get_VDI(vbd), {})
    guest.ticks_reach(before + 4)
    for captured in (snapshot, clone):
        other = make_machine(qemu_host, api, "captured")
        (drive,) = api.VM.get_VBDs(other.vm)
        own = api.VBD.get_VDI(drive)
        api.VBD.destroy(drive)
        api.VDI.destroy(own)
        make_drive(api, other.vm, captured)
        api.VM.start(other.vm, False, False)
        assert other.boots() == 2
        remove_machine(api, other.vm)


def test_clones_of_a_machine_share_its_past_and_not_its_future(qemu_host: InProcessHost, api: Any) -> None:
    first = make_machine(qemu_host, api, "first")
    api.VM.start(first.vm, False, False)
    first.wait_until_up()
    assert first.boots() == 1
    api.VM.clean_shutdown(first.vm)
    clone = Guest(qemu_host, api, api.VM.clone(first.vm, "clone"))
    copy = Guest(qemu_host, api, api.VM.copy(first.vm, "copy", "OpaqueRef:NULL"))
    for machine in (clone, copy, first):
        api.VM.start(machine.vm, False, False)
        assert machine.boots() == 2
        assert values(machine.serial(), "boot_id")
    for machine in (clone, copy, first):
        remove_machine(api, machine.vm)
