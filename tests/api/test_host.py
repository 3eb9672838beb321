"""The host, the pool, storage repositories and networks as clients see them."""

from __future__ import annotations

import http.server
import io
import logging
import os
import socket
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.errors import refused
from tests.api.harness import PASSWORD, InProcessHost, in_process, login, plain_proxy


@pytest.fixture
def this_host(api: Any, session: Any) -> str:
    return str(api.session.get_this_host(session.handle))


def test_the_host_tells_the_truth(api: Any, this_host: str) -> None:
    record = api.host.get_record(this_host)
    assert record["hostname"] == socket.gethostname()
    assert int(record["cpu_info"]["cpu_count"]) == os.cpu_count() == len(record["host_CPUs"])
    metrics = api.host_metrics.get_record(record["metrics"])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert int(metrics["memory_total"]) == pytest.approx(total, rel=0.01)
    assert 0 < int(metrics["memory_free"]) < int(metrics["memory_total"])
    assert record["software_version"]["accelerator"] == "sim"


def test_what_clients_read_after_login(api: Any, session: Any, this_host: str) -> None:
    assert api.pool.get_master(api.pool.get_all()[0]) == this_host
    assert api.session.get_is_local_superuser(session.handle)
    assert api.session.get_rbac_permissions(session.handle) == []
    major, minor = api.host.get_API_version_major(this_host), api.host.get_API_version_minor(this_host)
    assert (int(major), int(minor)) >= (2, 0)
    record = api.host.get_record(this_host)
    version = record["software_version"]
    assert {"product_version", "product_version_text", "product_brand", "xapi"} <= set(version)
    assert tuple(map(int, version["platform_version"].split("."))) >= (3, 4)
    assert int(record["cpu_info"]["socket_count"]) > 0
    assert time.strptime(record["license_params"]["expiry"], "%Y%m%dT%H:%M:%SZ").tm_year > 2030
    assert {"bios-vendor", "system-manufacturer", "system-product-name"} <= set(record["bios_strings"])
    assert api.pool.get_default_SR(api.pool.get_all()[0]) in api.SR.get_all()


def test_the_control_domain_is_left_alone(api: Any, this_host: str) -> None:
    control = api.host.get_control_domain(this_host)
    assert api.VM.get_is_control_domain(control)
    assert api.VM.get_power_state(control) == "Running"
    with refused("OPERATION_NOT_ALLOWED"):
        api.VM.hard_shutdown(control)


def test_a_disabled_host_starts_nothing(api: Any, this_host: str, machine: str) -> None:
    api.host.disable(this_host)
    assert not api.host.get_enabled(this_host)
    assert "vm_start" not in api.host.get_allowed_operations(this_host)
    try:
        with refused("HOST_DISABLED", this_host):
            api.VM.start(machine, False, False)
    finally:
        api.host.enable(this_host)
    assert "vm_start" in api.host.get_allowed_operations(this_host)


def test_nobodys_laptop_goes_off(host: InProcessHost, api: Any, this_host: str) -> None:
    with refused("HOST_NOT_DISABLED"):
        api.host.shutdown(this_host)
    api.host.disable(this_host)
    try:
        with refused("OPERATION_NOT_ALLOWED"):
            api.host.shutdown(this_host)
        with refused("OPERATION_NOT_ALLOWED"):
            api.host.reboot(this_host)
    finally:
        api.host.enable(this_host)
    assert host.daemon.stack.control.asked == []  # type: ignore[attr-defined]  # the simulated control has it


def test_power_off_where_it_is_allowed(tmp_path: Path) -> None:
    with in_process(tmp_path, allow_power_off=True) as host:
        api = login(host.url).xenapi
        (this,) = api.host.get_all()
        api.host.disable(this)
        api.host.reboot(this)
        api.host.shutdown(this)
        assert host.daemon.stack.control.asked == ["reboot", "power off"]  # type: ignore[attr-defined]  # as above


def test_logs(api: Any, this_host: str) -> None:
    assert "simulated host" in api.host.dmesg(this_host)
    assert "simulated host" in api.host.dmesg_clear(this_host)
    assert api.host.dmesg(this_host) == ""
    assert isinstance(api.host.get_log(this_host), str)
    assert "capability" in api.host.get_system_status_capabilities(this_host)


def test_what_a_session_for_emergencies_is_good_for(host: InProcessHost, this_host: str) -> None:
    proxy = plain_proxy(host.url)
    handle = proxy.session.slave_local_login_with_password("root", PASSWORD)["Value"]
    assert "capability" in proxy.host.get_system_status_capabilities(handle, this_host)["Value"]
    answer = proxy.pool.emergency_transition_to_master(handle)
    assert answer["ErrorDescription"] == ["NOT_IMPLEMENTED", "pool.emergency_transition_to_master"]
    for call in (proxy.VM.get_all, proxy.host.get_all, proxy.pool.get_all):
        assert call(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]
    assert proxy.session.local_logout(handle)["Status"] == "Success"


def test_the_log_goes_to_a_syslog_server(api: Any, this_host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        destination = f"127.0.0.1:{server.getsockname()[1]}"
        api.host.set_logging(this_host, {"syslog_destination": destination})
        api.host.syslog_reconfigure(this_host)
        api.host.set_logging(this_host, {})
        logging.getLogger("domzero.tests").warning("a line for the server")
        while b"a line for the server" not in server.recv(4096):
            continue  # Others may have had something to say before.
        api.host.syslog_reconfigure(this_host)


def test_a_bug_report_is_sent(api: Any, this_host: str) -> None:
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        api.host.bugreport_upload(this_host, f"http://127.0.0.1:{server.server_port}/report", {})
        thread.join(20)
    with tarfile.open(fileobj=io.BytesIO(received[0])) as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"domzero-log-domzero.log", "kernel-log-kernel.log", "inventory-inventory.txt", "database-VM.jsonl"} <= names
    for url in ("file:///etc/passwd", ""):
        with refused("INVALID_VALUE"):
            api.host.bugreport_upload(this_host, url, {})
    with refused("SYSTEM_STATUS_RETRIEVAL_FAILED"):
        api.host.bugreport_upload(this_host, "http://127.0.0.1:1/", {})


def test_evacuation_of_a_host_that_is_alone(api: Any, this_host: str, machine: str) -> None:
    api.host.assert_can_evacuate(this_host)
    api.VM.start(machine, False, False)
    with refused("CANNOT_EVACUATE_HOST"):
        api.host.evacuate(this_host)
    assert list(api.host.get_vms_which_prevent_evacuation(this_host)) == [machine]
    api.VM.hard_shutdown(machine)


def test_networks(api: Any) -> None:
    network = api.network.create({"name_label": "mine", "name_description": "", "other_config": {}})
    bridge = api.network.get_bridge(network)
    assert bridge.startswith("xapi")
    named = {"name_label": "named", "name_description": "", "other_config": {}, "bridge": "mine0"}
    other = api.network.create(named)
    with refused("BRIDGE_NAME_EXISTS", "mine0"):
        api.network.create(named)
    for bad in ("xenbr7", "mine0; rm", "far-too-long-a-name"):
        with refused("INVALID_VALUE", "bridge", bad):
            api.network.create({**named, "bridge": bad})
    api.network.destroy(other)
    api.network.destroy(network)
    with refused("HANDLE_INVALID", "network", network):
        api.network.destroy(network)


def test_interfaces_have_pifs_and_networks(api: Any, this_host: str) -> None:
    for pif in api.host.get_PIFs(this_host):
        record = api.PIF.get_record(pif)
        assert record["VLAN"] == "-1"
        assert record["physical"]
        assert record["network"] in api.network.get_all()
        assert pif in api.network.get_PIFs(record["network"])


def test_life_of_a_repository(api: Any, this_host: str, tmp_path: Path) -> None:
    sr = api.SR.create(this_host, {"location": str(tmp_path)}, "0", "second", "", "file", "user", False, {})
    (pbd,) = api.SR.get_PBDs(sr)
    assert api.PBD.get_currently_attached(pbd)
    with refused("PBD_EXISTS"):
        api.PBD.create({"host": this_host, "SR": sr, "device_config": {}, "other_config": {}})
    with refused("SR_HAS_PBD", sr):
        api.SR.forget(sr)
    uuid = api.SR.get_uuid(sr)
    api.PBD.unplug(pbd)
    api.PBD.unplug(pbd)
    api.SR.forget(sr)
    with refused("UUID_INVALID", "SR", uuid):
        api.SR.get_by_uuid(uuid)
    sr = api.SR.introduce(uuid, "second again", "", "file", "user", False, {})
    with refused("SR_UUID_EXISTS", uuid):
        api.SR.introduce(uuid, "", "", "file", "user", False, {})
    pbd = api.PBD.create(
        {"host": this_host, "SR": sr, "device_config": {"location": str(tmp_path)}, "other_config": {}}
    )
    api.PBD.plug(pbd)
    api.PBD.plug(pbd)
    api.SR.scan(sr)
    with refused("SR_HAS_PBD"):
        api.SR.destroy(sr)
    api.PBD.unplug(pbd)
    api.SR.destroy(sr)
    assert sr not in api.SR.get_all()


def test_repositories_that_cannot_be(api: Any, this_host: str) -> None:
    before = set(api.SR.get_all()), set(api.PBD.get_all())
    with refused("SR_UNKNOWN_DRIVER", "floppy"):
        api.SR.create(this_host, {}, "0", "x", "", "floppy", "user", False, {})
    with refused("MESSAGE_DEPRECATED"):
        api.SR.make(this_host, {}, "0", "x", "", "file", "user", {})
    assert (set(api.SR.get_all()), set(api.PBD.get_all())) == before


def test_every_storage_driver_is_shown(api: Any) -> None:
    shown = {record["type"]: record for record in api.SM.get_all_records().values()}
    assert set(shown) == set(api.SR.get_supported_types())
    assert "VDI_CREATE" in shown["file"]["capabilities"]
