"""Two hosts of Open vSwitch, each with a guest, on one VLAN over a bond of two cables, of which one is cut."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests.host.network.stage import network_namespace
from tests.host.network.switch import TestSwitch, switch_in
from tests.service.daemons import Daemon
from tests.service.test_internal_network import Client, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="needs Open vSwitch"),
]

OWN_FILES = """
mount -t sysfs sysfs /sys && mount --bind "$1/resolv.conf" /etc/resolv.conf && mount -t tmpfs tmpfs /run &&
mkdir /run/openvswitch && mount --bind "$1/ovs" /run/openvswitch && shift && exec "$@"
"""
"""The switch's sockets are where the daemon looks for them, and the machine's name servers stay as they are."""

DIGEST = re.compile(r"\b[0-9a-f]{32}\b")
CABLES = ("eth1", "eth2")
NO_QOS: dict[str, Any] = {"qos_algorithm_type": "", "qos_algorithm_params": {}}


class Terminal:
    """A guest's serial line, logged in."""

    def __init__(self, path: Path) -> None:
        self._said = b""
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(0.2)
        self._line.connect(str(path))
        self._commands = 0

    def __enter__(self) -> Self:
        self._expect(rb"login: *$", b"\n")
        self._line.sendall(b"root\n")
        self._expect(rb"tiny# ")
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def run(self, command: str, patience: float = 60) -> str:
        """What a command says that succeeds."""
        self._commands += 1
        begin, mark = len(self._said), f"done-{self._commands}"
        # The mark as it is typed differs from the mark as it is said.
        self._line.sendall(f"{command}; echo done''-{self._commands}-$?\n".encode())
        deadline = time.monotonic() + patience
        while not (found := re.search(rf"{mark}-(\d+)\r".encode(), self._said[begin:])):
            assert time.monotonic() < deadline, self._said[begin:]
            self._read()
        said = self._said[begin : begin + found.start()].decode(errors="replace")
        assert found[1] == b"0", said
        return said

    def _expect(self, pattern: bytes, call: bytes = b"") -> None:
        deadline = time.monotonic() + 60
        while not re.search(pattern, self._said):
            assert time.monotonic() < deadline, self._said
            with suppress(TimeoutError):  # A guest that is still booting reads nothing.
                self._line.sendall(call)
            self._read()

    def _read(self) -> None:
        with suppress(TimeoutError):
            self._said += self._line.recv(65536)


@dataclass
class Site:
    """A host with a daemon of its own in a network namespace."""

    namespace: Path
    switch: TestSwitch
    daemon: Daemon
    api: Client

    def network(self, name: str) -> str:
        fields = {"name_label": name, "name_description": "", "MTU": "1500", "other_config": {}, "tags": []}
        return str(self.api.call("network.create", fields))

    def guest(self, network: str) -> Path:
        """Start a machine with a card on a network: the path of its serial line."""
        vm = self.api.call("VM.clone", self.api.call("VM.get_by_name_label", "Tiny Linux")[0], "guest")
        self.api.call("VM.provision", vm)
        card = {"VM": vm, "network": network, "device": "0", "MAC": "", "MTU": "1500", "other_config": {}}
        self.api.call("VIF.create", {**card, **NO_QOS})
        self.api.call("VM.start", vm, False, False)
        return self.daemon.state / "run" / str(self.api.call("VM.get_domid", vm)) / "serial.sock"

    def vlan_over_bond(self) -> str:
        """A network of VLAN 7 on a bond of both cables."""
        pifs = {self.api.call("PIF.get_device", pif): pif for pif in self.api.call("PIF.get_all")}
        bonded = self.network("bond")
        bond = self.api.call("Bond.create", bonded, [pifs[name] for name in CABLES], "", "active-backup", {})
        network = self.network("seven")
        self.api.call("VLAN.create", self.api.call("Bond.get_master", bond), "7", network)
        return network

    def end_guests(self) -> None:
        for vm in self.api.call("VM.get_by_name_label", "guest"):
            self.api.call("VM.hard_shutdown", vm)


@contextmanager
def site(namespace: Path, directory: Path) -> Iterator[Site]:
    directory.mkdir()
    (directory / "state").mkdir()
    (directory / "resolv.conf").touch()
    arguments = ("--https", "127.0.0.1:0", "--accel", "tcg", "--network", "openvswitch")
    mounted = ("unshare", "--mount", "sh", "-c", OWN_FILES, "sh", str(directory))
    daemon = Daemon(
        directory,
        (*arguments, "--manage-interfaces", ",".join(CABLES)),
        before=("nsenter", f"--net={namespace}", *mounted),
    )
    with switch_in(namespace, directory / "ovs") as switch:
        try:
            daemon.start()
            with closing(Client(daemon.socket)) as api:
                made = Site(namespace, switch, daemon, api)
                yield made
                made.end_guests()
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop()


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    """Two hosts, each with two cables to a switch between them: members of a bond hear what is sent to the active one
    alone, and which that is, each host chooses for itself."""
    with ExitStack() as stack:
        # A short path: sockets are made in it.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dz-")))
        between, one, two = (stack.enter_context(network_namespace()) for _ in range(3))
        ip(between, "link", "add", "lan", "type", "bridge", "forward_delay", "0")
        ip(between, "link", "set", "lan", "up")
        for number, namespace in enumerate((one, two)):
            ip(namespace, "link", "set", "lo", "up")
            for name in CABLES:
                far = f"{name}-{number}"
                ip(between, "link", "add", far, "type", "veth", "peer", "name", name, "netns", namespace.parts[2])
                ip(between, "link", "set", far, "master", "lan", "up")
                ip(namespace, "link", "set", name, "up")
        yield (
            stack.enter_context(site(one, directory / "one")),
            stack.enter_context(site(two, directory / "two")),
        )


def test_guests_talk_through_vlan_and_bond_and_go_on_when_a_cable_is_cut(sites: tuple[Site, Site]) -> None:
    here = sites[0]
    lines = [place.guest(place.vlan_over_bond()) for place in sites]
    assert here.switch.control("get", "Port", "vif1.0", "tag").strip() == "7"
    with Terminal(lines[0]) as one, Terminal(lines[1]) as two:
        one.run("ip addr add 192.0.2.1/24 dev eth0")
        two.run("ip addr add 192.0.2.2/24 dev eth0")
        one.run("until ping -c 1 -W 1 192.0.2.2; do :; done")
        one.run("head -c 2000000 /dev/urandom > /tmp/data")

        def arrives() -> bool:
            """Whether what one sends by TCP is what the other receives: it answers with the digest."""
            two.run("{ nc -l -p 5000 -e md5sum & }")
            received = DIGEST.findall(one.run("until nc 192.0.2.2 5000 < /tmp/data; do usleep 100000; done"))
            return bool(received == DIGEST.findall(one.run("md5sum < /tmp/data")))

        assert arrives()
        (bond,) = here.switch.control("--bare", "--columns=name", "find", "Port", "bond_mode=active-backup").split()
        until(lambda: carrying(here.switch, bond), "no member of the bond carries")
        before = carrying(here.switch, bond)
        ip(here.namespace, "link", "set", before, "down")
        until(lambda: carrying(here.switch, bond) not in ("", before), "the bond does not change over")
        one.run("until ping -c 1 -W 1 192.0.2.2; do :; done")
        assert arrives()
        one.run("ping -c 3 192.0.2.2")


def ip(namespace: Path, *words: str) -> None:
    """ip(8) in a namespace."""
    subprocess.run(["nsenter", f"--net={namespace}", "ip", *words], check=True, timeout=20)


def carrying(switch: TestSwitch, bond: str) -> str:
    """The member of a bond that carries, empty for none."""
    mac = switch.control("get", "Port", bond, "bond_active_slave").strip().strip('"')
    found = switch.control("--bare", "--columns=name", "find", "Interface", f'mac_in_use="{mac}"').split()
    return next((name for name in found if name in CABLES), "")
