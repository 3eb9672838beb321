"""The agent and a whole host: what it says is seen in the API, what the API asks is done."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest.domzero_guest.agent import Agent
from guest.domzero_guest.netlink import Address
from guest.domzero_guest.settings import Settings

from domzero.host.guest_port.sockets import PortSockets
from domzero.host.xenstore.server import XenstoreServer
from tests.api.harness import InProcessHost, in_process, login
from tests.guest.surroundings import MAC, Guest


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def door(host: InProcessHost, domid: int, path: Path) -> Path:
    """A socket that is the domain's, as its port is where machines are real."""
    ports = host.daemon.stack.guests._ports
    assert isinstance(ports, PortSockets)
    server: XenstoreServer = ports._server
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    host.run(server.serve(listening, domid))
    return path


@contextmanager
def running(guest: Guest, path: Path) -> Iterator[None]:
    agent = Agent(Settings((str(path),)), guest.system(), guest.desktop())
    thread = threading.Thread(target=agent.run, name="agent")
    thread.start()
    try:
        yield
    finally:
        agent.stop()
        thread.join(20)
    assert not thread.is_alive()


def test_what_a_guest_is_and_does_is_seen_in_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest.domzero_guest.session.REPORT", 0.05)
    guest = Guest(tmp_path / "root")
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "with an agent")
        network = api.network.get_all()[0]
        card = {"VM": vm, "network": network, "device": "0", "MAC": MAC, "MTU": "1500", "other_config": {}}
        api.VIF.create({**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
        api.VM.provision(vm)
        api.VM.start(vm, False, False)

        def metrics() -> Any:
            reference = api.VM.get_guest_metrics(vm)
            return {"other": {}} if reference == "OpaqueRef:NULL" else api.VM_guest_metrics.get_record(reference)

        with running(guest, door(host, int(api.VM.get_domid(vm)), tmp_path / "door")):
            until(lambda: metrics()["other"].get("data-ts") == "0" and metrics()["networks"])
            record = metrics()
            assert record["live"]
            assert record["PV_drivers_version"]["major"] == "1"
            assert record["os_version"]["name"] == "Example Linux 9.4 (Nine)"
            assert record["memory"] == {"total": "1000000", "free": "400000"}
            assert record["networks"] == {"0/ip": "192.0.2.10", "0/ipv4/0": "192.0.2.10"}
            assert record["disks"]["0/name"] == "/dev/vda1"
            assert record["other"]["feature-ts"] == record["other"]["feature-ts2"] == "1"
            assert record["can_use_hotplug_vbd"] == "yes"

            api.VM.call_plugin(vm, "guest-agent-operation", "request_rdp_on", {})
            until(lambda: metrics()["other"].get("data-ts") == "1")  # removed, then told anew
            assert ("systemctl", "enable", "--now", "xrdp.service") in guest.ran

            guest.addresses = [Address(2, socket.AF_INET, 0, "192.0.2.77")]
            until(lambda: metrics()["networks"] == {"0/ip": "192.0.2.77", "0/ipv4/0": "192.0.2.77"})
