"""Real machines in and out: the same bit for bit, and they boot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.toolstack.storage.disks import disk_source
from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.toolstack.transfer.test_machines_over_http import curl, ended, first_disk, sign_in, upload

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
    done = subprocess.run(
        ["qemu-img", "compare", "-s", path_of(host, one), path_of(host, other)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
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
    for machine in (guest.vm, vm):
        remove_machine(api, machine)


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
