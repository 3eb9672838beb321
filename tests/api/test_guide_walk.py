"""The API guide's chapters 3 and 4 with the official binding, against real virtual machines."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.host.guest_image.console import is_ready
from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login, plain_proxy
from tests.api.processes import process_of

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def qemu_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture
def api(qemu_host: InProcessHost) -> Iterator[Any]:
    session = login(qemu_host.url)
    yield session.xenapi
    session.xenapi.session.logout()


@pytest.fixture(scope="module")
def ticking(qemu_host: InProcessHost) -> Iterator[Guest]:
    """A running machine that counts in its memory, shared by the tests that leave it running."""
    api = login(qemu_host.url).xenapi
    guest = make_machine(qemu_host, api, "ticking", ticking=True)
    api.VM.start(guest.vm, False, False)
    guest.wait_until_up()
    yield guest
    remove_machine(api, guest.vm)


def test_chapter_3_walk(qemu_host: InProcessHost) -> None:
    """Log in, choose a template, install, take the machine through its life, log out."""
    session = login(qemu_host.url)
    api = session.xenapi
    vm = installed_from_template(api, "Tiny Linux", "guide")
    assert not api.VM.get_is_a_template(vm)
    guest = Guest(qemu_host, api, vm)
    live_through(api, guest)
    remove_machine(api, vm)
    handle = session.handle
    api.session.logout()
    assert plain_proxy(qemu_host.url).VM.get_all(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]


def installed_from_template(api: Any, template_name: str, name: str) -> str:
    """The guide's way to a new machine: clone a template, add a card, provision."""
    templates = {ref: record for ref, record in api.VM.get_all_records().items() if record["is_a_template"]}
    template = next(ref for ref, record in templates.items() if record["name_label"] == template_name)
    vm = str(api.VM.clone(template, name))
    networks = api.network.get_all_records()
    network = next((ref for ref, record in networks.items() if "eth0" in record["name_label"]), next(iter(networks)))
    api.VIF.create(
        {
            "device": "0",
            "network": network,
            "VM": vm,
            "MAC": "",
            "MTU": "1500",
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )
    api.VM.provision(vm)
    return vm


def live_through(api: Any, guest: Guest) -> None:
    """Start, reboot, suspend, resume, shut down."""
    vm = guest.vm
    api.VM.start(vm, False, False)
    assert api.VM.get_power_state(vm) == "Running"
    assert guest.boots() == 1
    guest.wait_until_up()
    assert b"nic eth0 added" in guest.serial()
    api.VM.clean_reboot(vm)
    assert api.VM.get_power_state(vm) == "Running"
    assert guest.boots() == 2
    guest.wait_until_up()
    api.VM.suspend(vm)
    assert api.VM.get_power_state(vm) == "Suspended"
    api.VM.resume(vm, False, False)
    assert api.VM.get_power_state(vm) == "Running"
    api.VM.clean_shutdown(vm)
    assert api.VM.get_power_state(vm) == "Halted"


def test_memory_survives_suspend(api: Any, ticking: Guest) -> None:
    before = ticking.ticks_reach(4)
    api.VM.suspend(ticking.vm)
    image = api.VM.get_suspend_VDI(ticking.vm)
    assert api.VDI.get_type(image) == "suspend"
    assert int(api.VDI.get_physical_utilisation(image)) > 10 << 20
    api.VM.resume(ticking.vm, False, False)
    assert image not in api.VDI.get_all()
    after = ticking.ticks_reach(max(before) + 2)
    # A counter that began anew would start at 1 again.
    assert after[0] >= max(before) - 1
    assert after == sorted(after)


def test_pause_stops_the_guest(api: Any, ticking: Guest) -> None:
    ticking.ticks_reach(2)
    api.VM.pause(ticking.vm)
    still = ticking.serial()
    time.sleep(1.2)
    assert ticking.serial() == still
    api.VM.unpause(ticking.vm)
    assert api.VM.get_power_state(ticking.vm) == "Running"


def test_checkpoint_and_revert(api: Any, ticking: Guest) -> None:
    """Going back to a checkpoint brings the memory of that moment back."""
    before = max(ticking.ticks_reach(3))
    checkpoint = api.VM.checkpoint(ticking.vm, "then")
    assert api.VM.get_power_state(ticking.vm) == "Running"
    assert api.VM.get_power_state(checkpoint) == "Suspended"
    # The guest has not stood still from `before` to the checkpoint, however long that took to begin.
    at_most = max(ticking.ticks_reach(before + 1))
    ticking.ticks_reach(at_most + 4)
    api.VM.hard_shutdown(ticking.vm)
    api.VM.revert(checkpoint)
    assert api.VM.get_power_state(ticking.vm) == "Suspended"
    api.VM.resume(ticking.vm, False, False)
    after = ticking.ticks_reach(before + 1)
    assert before <= after[0] <= at_most + 1
    remove_machine(api, checkpoint)


def test_chapter_4_events_and_progress(qemu_host: InProcessHost) -> None:
    """An asynchronous start, seen through events by another client, followed through its task."""
    watcher, actor = login(qemu_host.url).xenapi, login(qemu_host.url).xenapi
    guest = make_machine(qemu_host, actor, "watched")
    watcher.event.register(["vm"])
    seen: list[str] = []

    def watch() -> None:
        while "Running" not in seen:
            seen.extend(
                event["snapshot"]["power_state"]
                for event in watcher.event.next()
                if event["ref"] == guest.vm and "snapshot" in event
            )

    thread = threading.Thread(target=watch)
    thread.start()
    task = actor.Async.VM.start(guest.vm, False, False)
    while (record := actor.task.get_record(task))["status"] == "pending":
        assert 0.0 <= record["progress"] <= 1.0
        time.sleep(0.02)
    assert record["status"] == "success"
    assert actor.task.get_progress(task) == 1.0
    actor.task.destroy(task)
    thread.join(30)
    assert seen[-1] == "Running"
    remove_machine(actor, guest.vm)


def test_a_killed_machine_is_noticed(qemu_host: InProcessHost, api: Any) -> None:
    """A QEMU killed from outside: the right state, an event, and nothing left behind."""
    guest = make_machine(qemu_host, api, "victim")
    api.VM.start(guest.vm, False, False)
    # Events of this kind tell of every state, also of one that is over soon.
    api.event.register([f"VM/{guest.vm}"])
    os.kill(process_of(api.VM.get_uuid(guest.vm)), signal.SIGKILL)
    while not any(event["snapshot"]["domid"] == "-1" for event in api.event.next()):
        continue
    # actions_after_crash is restart: the machine comes back by itself as a new domain.
    deadline = time.monotonic() + 60
    while api.VM.get_power_state(guest.vm) != "Running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    remove_machine(api, guest.vm)


def test_running_machines_are_adopted(tmp_path: Path) -> None:
    """The daemon goes and comes back; its machines never stopped."""
    with in_process(tmp_path, hypervisor="qemu", accel="tcg") as host:
        api = login(host.url).xenapi
        guest = make_machine(host, api, "survivor", ticking=True)
        api.VM.start(guest.vm, False, False)
        before = max(guest.ticks_reach(2))
        domid, pid = api.VM.get_domid(guest.vm), process_of(api.VM.get_uuid(guest.vm))
    with in_process(tmp_path, hypervisor="qemu", accel="tcg") as host:
        api = login(host.url).xenapi
        guest = Guest(host, api, guest.vm)
        assert api.VM.get_power_state(guest.vm) == "Running"
        assert (api.VM.get_domid(guest.vm), process_of(api.VM.get_uuid(guest.vm))) == (domid, pid)
        guest.ticks_reach(before + 2)
        assert is_ready(guest.serial())
        remove_machine(api, guest.vm)


def test_a_panicked_guest_is_preserved(qemu_host: InProcessHost, api: Any) -> None:
    """With `preserve` a guest that panics stays as it is, paused, with its last words on the serial line."""
    guest = make_machine(qemu_host, api, "evidence")
    api.VM.set_actions_after_crash(guest.vm, "preserve")
    api.VM.start(guest.vm, False, False)
    domid = api.VM.get_domid(guest.vm)
    guest.wait_until_up()
    api.VM.send_sysrq(guest.vm, "c")
    deadline = time.monotonic() + 30
    while api.VM.get_power_state(guest.vm) != "Paused":
        assert time.monotonic() < deadline, guest.serial()[-1000:]
        time.sleep(0.05)
    assert api.VM.get_domid(guest.vm) == domid
    assert b"sysrq" in guest.serial() or b"panic" in guest.serial()
    remove_machine(api, guest.vm)
