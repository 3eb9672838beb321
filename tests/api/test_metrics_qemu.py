"""A real machine is measured: what QEMU counts of its processor and its disk becomes history."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domzero.toolstack.metrics import Metrics
from tests.api.harness import PASSWORD, InProcessHost, in_process, login

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg", network="user") as host:
        yield host


def counted(url: str) -> dict[str, float]:
    """The latest samples about machines, by name."""
    words = ["curl", "-sk", "-u", f"root:{PASSWORD}", f"{url}/metrics"]
    text = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for it in families for sample in it.samples if "domzero_vm_" in sample.name}


def test_what_a_guest_does_is_seen(host: InProcessHost) -> None:
    api = login(host.url).xenapi
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "measured")
    api.VM.provision(vm)
    api.VM.start(vm, False, False)
    try:
        fields_tell_of_the_boot(host, api, vm)
        for _ in range(120):
            found = counted(host.url)
            # The guest looks at its disk while it boots.
            if found.get("domzero_vm_disk_reads_total", 0) > 0 and found["domzero_vm_cpu_seconds_total"] > 0.5:
                break
            time.sleep(0.5)
        assert found["domzero_vm_disk_read_bytes_total"] >= 512 * found["domzero_vm_disk_reads_total"] > 0
        assert found["domzero_vm_disk_read_seconds_total"] > 0
        assert found["domzero_vm_memory_bytes"] > 64 << 20
        for _ in range(60):
            sources = {it["name_label"]: it for it in api.VM.get_data_sources(vm)}
            if float(sources["cpu0"]["value"]) > 0:
                break
            time.sleep(0.5)
        assert 0 < float(sources["cpu0"]["value"]) <= 1
        assert {"vbd_xvda_iops_total", "vbd_xvda_avgqu_sz", "vbd_xvda_read_latency"} <= sources.keys()
        assert any(it["name_label"].startswith("iops_read_") for it in of_host(api))
    finally:
        api.VM.hard_shutdown(vm)


def fields_tell_of_the_boot(host: InProcessHost, api: Any, vm: str) -> None:
    """A booting guest computes and reads, which it did not do before."""
    metrics = Metrics(host.daemon.stack)
    (drive,) = (vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk")
    processors = {str(number) for number in range(os.cpu_count() or 1)}
    deadline = time.monotonic() + 60
    read = busy = 0.0
    while not (read > 0 and busy > 0):
        assert time.monotonic() < deadline
        host.run(metrics.measure())
        machine = api.VM_metrics.get_record(api.VM.get_metrics(vm))
        read = max(read, api.VBD_metrics.get_io_read_kbs(api.VBD.get_metrics(drive)))
        busy = max([busy, *machine["VCPUs_utilisation"].values()])
        time.sleep(0.2)
    assert (machine["state"], machine["VCPUs_flags"]) == (["running"], {"0": ["online"]})
    assert set(machine["VCPUs_CPU"].values()) <= processors
    assert machine["VCPUs_CPU"].keys() == {"0"}
    assert 64 << 20 < int(machine["memory_actual"]) <= 256 << 20
    assert busy <= 1


def of_host(api: Any) -> list[dict[str, Any]]:
    return list(api.host.get_data_sources(api.host.get_all()[0]))
