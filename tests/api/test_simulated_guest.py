"""A simulated host's guests are played by whoever tests against it, with xenstore's tools on the host's socket."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.api.harness import in_process, login

WRITE = Path("/usr/bin/xenstore-write")


@pytest.mark.skipif(not WRITE.exists(), reason="xenstore-utils is not installed")
def test_an_agent_is_played(tmp_path: Path) -> None:
    socket = tmp_path / "xenstore"
    with in_process(tmp_path, xenstore_socket=socket) as host:
        api = login(host.url).xenapi
        vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "played")
        api.VM.provision(vm)
        api.VM.start(vm, False, False)
        home = f"/local/domain/{api.VM.get_domid(vm)}"
        nodes = {"attr/PVAddons/MajorVersion": "9", "attr/PVAddons/MinorVersion": "4", "attr/eth0/ip": "10.0.0.5"}
        words = [word for path, value in {**nodes, "data/updated": "1"}.items() for word in (f"{home}/{path}", value)]
        environment = {**os.environ, "XENSTORED_PATH": str(socket)}
        subprocess.run([WRITE, *words], check=True, env=environment, timeout=20)
        deadline = time.monotonic() + 10
        while (metrics := api.VM.get_guest_metrics(vm)) == "OpaqueRef:NULL":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        record = api.VM_guest_metrics.get_record(metrics)
        assert (record["networks"], record["live"]) == ({"0/ip": "10.0.0.5"}, True)
        assert record["PV_drivers_version"] == {"major": "9", "minor": "4", "micro": "-1"}
