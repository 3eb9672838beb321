"""A guest on the network that is there from the start gets an address, and nothing of it is left when it is gone."""

from __future__ import annotations

import re
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.host.guest_image.console import statements
from tests.front.toy import UnixTransport
from tests.host.network.stage import network_namespace
from tests.service.daemons import Daemon

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 90.0
ADDRESS = re.compile(r"nic eth0 address=172\.16\.122\.[0-9]+")


OWN_SYSFS = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh")
"""What the kernel shows of interfaces below /sys is of the namespace in which that was mounted."""


class Client:
    """A session over the daemon's Unix socket."""

    def __init__(self, path: Path) -> None:
        self._proxy = xmlrpc.client.ServerProxy("http://localhost", transport=UnixTransport(path))
        self._session = self.call("session.login_with_password", "root", "", session=False)

    def close(self) -> None:
        self._proxy("close")()

    def call(self, method: str, *params: Any, session: bool = True) -> Any:
        answer: Any = getattr(self._proxy, method)(*((self._session,) if session else ()), *params)
        assert answer["Status"] == "Success", answer
        return answer["Value"]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def namespace() -> Iterator[Path]:
    with network_namespace() as path:
        subprocess.run(["nsenter", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True, timeout=20)
        yield path


def links(namespace: Path) -> set[str]:
    argv = ["nsenter", f"--net={namespace}", "ip", "-o", "link"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
    return {line.split(": ")[1].partition("@")[0] for line in listed.splitlines()} - {"lo"}


def serves(directory: Path) -> bool:
    """Whether a DHCP server with files in that directory runs."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes()
        except OSError:
            continue  # It has ended meanwhile.
        if line.startswith(b"dnsmasq") and bytes(directory) in line:
            return True
    return False


def test_a_fresh_guest_gets_an_address(namespace: Path, tmp_path: Path) -> None:
    arguments = ("--https", "127.0.0.1:0", "--accel", "tcg")
    daemon = Daemon(tmp_path, arguments, before=("nsenter", f"--net={namespace}", *OWN_SYSFS))
    (tmp_path / "state").mkdir()
    try:
        daemon.start()
        api = Client(daemon.socket)
        (network,) = api.call("network.get_all")
        assert links(namespace) == set()
        vm = api.call("VM.clone", api.call("VM.get_by_name_label", "Tiny Linux")[0], "guest")
        api.call("VM.provision", vm)
        api.call("VIF.create", {
            "VM": vm, "network": network, "device": "0", "MAC": "", "MTU": "1500", "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {},
        })  # fmt: skip
        api.call("VM.start", vm, False, False)
        serial = daemon.state / "run" / str(api.call("VM.get_domid", vm)) / "serial.log"
        until(lambda: any(map(ADDRESS.match, statements(serial.read_bytes()))), "the guest got no address")
        assert api.call("network.get_bridge", network) in links(namespace)
        assert serves(tmp_path)
        api.call("VM.hard_shutdown", vm)
        api.close()
        # What was left to be tidied later is tidied at the next start at the latest.
        assert daemon.stop() == 0
        daemon.start()
        until(lambda: links(namespace) == set(), "the bridge stays")
        until(lambda: not serves(tmp_path), "the DHCP server stays")
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()
