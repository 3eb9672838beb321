"""The daemon is killed while real machines run and operations are under way; the machines do not notice."""

from __future__ import annotations

import gc
import http.client
import random
import threading
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

from domzero.host.guest_image.console import TICK_ARGUMENT, ticks
from tests.api.guest import remove_machine
from tests.api.harness import ProcessHost, disconnect, login
from tests.api.processes import process_of

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 8


def newest_tick(directory: Path) -> int:
    """The latest number on the serial line of the only machine."""
    (log,) = (directory / "state" / "run").glob("*/serial.log")
    return max(ticks(log.read_bytes()), default=0)


def wait_for_tick(directory: Path, number: int) -> int:
    deadline = time.monotonic() + 60
    while (newest := newest_tick(directory)) < number:
        assert time.monotonic() < deadline, "the guest does not go on"
        time.sleep(0.05)
    return newest


def keep_busy(url: str, stop: threading.Event) -> None:
    """Disks and machines made and removed, until the daemon is gone.

    A client of the standard library that loses its server in the middle of an answer forgets to close its socket.
    """
    try:
        api = login(url).xenapi
        template = api.VM.get_by_name_label("Tiny Linux")[0]
        while not stop.is_set():
            vm = api.VM.clone(template, "busy")
            api.VM.provision(vm)
            remove_machine(api, vm)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        # The daemon was killed under this client, which is what the test is about.
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_a_machine_outlives_daemons(tmp_path: Path) -> None:
    moments = random.Random(7)
    host = ProcessHost(tmp_path, ("--hypervisor", "qemu", "--accel", "tcg"))
    api: Any = login(host.start()).xenapi
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "survivor")
    api.VM.set_PV_args(vm, f"{api.VM.get_PV_args(vm)} {TICK_ARGUMENT}")
    api.VM.provision(vm)
    api.VM.start(vm, False, False)
    uuid, domid = api.VM.get_uuid(vm), api.VM.get_domid(vm)
    process, tick = process_of(uuid), wait_for_tick(tmp_path, 1)
    for _ in range(KILLS):
        stop = threading.Event()
        worker = threading.Thread(target=keep_busy, args=(host.url, stop))
        worker.start()
        time.sleep(moments.uniform(0.0, 0.5))
        host.kill()
        stop.set()
        worker.join(30)
        disconnect(host.url)
        tick = wait_for_tick(tmp_path, tick + 1)
        api = login(host.start()).xenapi
        assert (api.VM.get_power_state(vm), api.VM.get_domid(vm)) == ("Running", domid)
        assert process_of(uuid) == process
        assert api.VM.get_current_operations(vm) == {}
    remove_machine(api, vm)
    assert_no_leaks(api, tmp_path)
    disconnect(host.url)
    host.stop()


def assert_no_leaks(api: Any, directory: Path) -> None:
    """Every file in the repository belongs to a disk, or is a base that one needs; a merge's own go when it is done.

    A disk without a file is one whose removal was cut short, after its machine's: no drive refers to it.
    """
    (default,) = {pool["default_SR"] for pool in api.pool.get_all_records().values()}
    api.SR.scan(default)
    disks = [record for record in api.VDI.get_all_records().values() if record["SR"] == default]
    known = {record["uuid"] for record in disks if not record["missing"]}
    assert not [record["uuid"] for record in disks if record["missing"] and record["VBDs"]]
    deadline = time.monotonic() + 60
    while (files := disk_files(directory)) != known:
        assert time.monotonic() < deadline, files ^ known
        time.sleep(0.05)


def disk_files(directory: Path) -> set[str]:
    """The names of the repository's files, bases left out."""
    names = {path.stem for path in (directory / "state" / "sr").glob("*.qcow2")}
    return {name for name in names if not name.startswith("base-")}
