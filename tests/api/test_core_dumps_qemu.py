"""A real guest crashes, and what it had in its memory is found in its crash dump."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.xe.terminal import printed

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def qemu_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("h"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture(scope="module")
def api(qemu_host: InProcessHost) -> Any:
    return login(qemu_host.url).xenapi


def crash(guest: Guest, api: Any) -> None:
    guest.wait_until_up()
    api.VM.send_sysrq(guest.vm, "c")


def until(api: Any, vm: str, condition: Any) -> None:
    """Wait for events of a machine until something is true of it."""
    token, deadline = "", time.monotonic() + 60
    while not condition(api.VM.get_record(vm)):
        assert time.monotonic() < deadline, api.VM.get_record(vm)
        token = getattr(api.event, "from")([f"VM/{vm}"], token, 5.0)["token"]


def core_of(host: InProcessHost, api: Any, vm: str) -> Path:
    (dump,) = api.VM.get_crash_dumps(vm)
    vdi = api.VDI.get_record(api.crashdump.get_VDI(dump))
    assert (vdi["type"], vdi["managed"], api.crashdump.get_VM(dump)) == ("crashdump", True, vm)
    assert host.settings.state_dir is not None
    (core,) = (path for path in Path(host.settings.state_dir).rglob(f"*{vdi['uuid']}*") if path.is_file())
    assert int(vdi["virtual_size"]) == core.stat().st_size
    return core


def check(core: Path, memory: int) -> None:
    said = subprocess.run(["readelf", "-h", "-n", core], capture_output=True, text=True, check=True).stdout
    assert "CORE (Core file)" in said
    assert "NT_PRSTATUS" in said
    assert core.stat().st_size >= memory - (1 << 20)
    assert b"Kernel panic - not syncing: sysrq triggered crash" in core.read_bytes()


def test_dumped_and_halted(qemu_host: InProcessHost, api: Any) -> None:
    guest = make_machine(qemu_host, api, "victim")
    api.VM.set_actions_after_crash(guest.vm, "coredump_and_destroy")
    api.VM.start(guest.vm, False, False)
    crash(guest, api)
    until(api, guest.vm, lambda record: record["power_state"] == "Halted")
    core = core_of(qemu_host, api, guest.vm)
    check(core, int(api.VM.get_memory_static_max(guest.vm)))
    uuid = api.VM.get_uuid(guest.vm)
    listed = printed(qemu_host, "vm-crashdump-list", f"uuid={uuid}")
    dump = api.crashdump.get_uuid(api.VM.get_crash_dumps(guest.vm)[0])
    assert dump in listed
    printed(qemu_host, "crashdump-destroy", f"uuid={dump}")
    assert not core.exists()
    assert {record["name"] for record in api.message.get_all_records().values()} >= {"VM_STARTED", "VM_CRASHED"}
    remove_machine(api, guest.vm)


def test_dumped_and_started_again(qemu_host: InProcessHost, api: Any) -> None:
    guest = make_machine(qemu_host, api, "survivor")
    api.VM.set_actions_after_crash(guest.vm, "coredump_and_restart")
    api.VM.start(guest.vm, False, False)
    domid = api.VM.get_domid(guest.vm)
    crash(guest, api)
    until(api, guest.vm, lambda record: record["domid"] not in (domid, "-1") and record["power_state"] == "Running")
    check(core_of(qemu_host, api, guest.vm), int(api.VM.get_memory_static_max(guest.vm)))
    guest.wait_until_up()
    (dump,) = api.VM.get_crash_dumps(guest.vm)
    api.crashdump.destroy(dump)
    remove_machine(api, guest.vm)
