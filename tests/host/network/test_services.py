"""The list of name servers, the files, and the programs that outlive the daemon. Needs no rights."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from domzero.host.network import files
from domzero.host.network.addresses import IPV6_STATIC, Addressing, RouteState
from domzero.host.network.helpers import Helpers
from domzero.host.network.layout import State
from domzero.host.network.plan import (
    AddressMode,
    AddressSpec,
    BondSpec,
    BridgeSpec,
    CardRules,
    DhcpServer,
    InterfaceSpec,
    LockingMode,
    NetworkPlan,
)
from domzero.host.network.protocol import CardSpec, NetworkError
from domzero.host.network.resolver import Resolver, is_domain
from domzero.host.network.user import UserNetwork

BEFORE = "# an operator's\nnameserver 203.0.113.53\n"


@pytest.fixture
def resolver(tmp_path: Path) -> Resolver:
    (tmp_path / "resolv.conf").write_text(BEFORE)
    return Resolver(tmp_path / "resolv.conf", tmp_path / "dns")


def said(resolver: Resolver) -> list[str]:
    assert resolver.path is not None
    return resolver.path.read_text().splitlines()


def test_the_list_is_put_together_and_given_back(resolver: Resolver) -> None:
    resolver.contribute("xenbr1", ("192.0.2.53", "nonsense", "2001:db8::53"), "example.org")
    resolver.contribute("xenbr0", ("192.0.2.54", "192.0.2.53"))
    assert said(resolver)[1:] == [
        "nameserver 192.0.2.54",
        "nameserver 192.0.2.53",
        "search example.org",
        "nameserver 2001:db8::53",
    ]
    assert resolver.servers("xenbr1") == ("192.0.2.53", "2001:db8::53")
    resolver.contribute("xenbr0", ())
    assert said(resolver)[1] == "search example.org"
    resolver.contribute("xenbr1", ())
    assert "\n".join(said(resolver)) + "\n" == BEFORE
    assert resolver.bridges() == frozenset()


def test_an_operators_list_that_came_later_is_kept(resolver: Resolver) -> None:
    assert resolver.path is not None
    resolver.contribute("xenbr1", ("192.0.2.53",))
    resolver.path.write_text("nameserver 203.0.113.99\n")
    resolver.contribute("xenbr1", ())
    assert said(resolver) == ["nameserver 203.0.113.99"]
    resolver.contribute("xenbr1", ("192.0.2.53",))
    resolver.contribute("xenbr1", ())
    assert said(resolver) == ["nameserver 203.0.113.99"]


def test_a_list_that_is_another_programs_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "stub").write_text(BEFORE)
    (tmp_path / "resolv.conf").symlink_to("stub")
    resolver = Resolver(tmp_path / "resolv.conf", tmp_path / "dns")
    resolver.contribute("xenbr1", ("192.0.2.53",))
    assert (tmp_path / "stub").read_text() == BEFORE
    assert "another program's" in caplog.text
    nobodys = Resolver(None, tmp_path / "none")
    nobodys.contribute("xenbr1", ("192.0.2.53",))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("example.org", True),
        ("_tcp.example.org.", True),
        ("a" * 64, False),
        ("", False),
        ("a..b", False),
        ("x y", False),
        ("x\nnameserver 192.0.2.1", False),
        ("a." * 127, False),
        ("a" * 30000 + "!", False),
    ],
)
def test_domains(text: str, good: bool) -> None:
    assert is_domain(text) is good


def test_what_interfaces_were_is_kept_word_for_word(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "found.json"
    found = {
        "eth1": State(
            "veth",
            mac="02:00:00:00:00:01",
            mtu=1500,
            ipv4=Addressing(("192.0.2.7/24",), (RouteState("default", "192.0.2.1", 0),)),
            ipv6=Addressing(),
            ipv6_switches=IPV6_STATIC,
            settings={"tx": "on"},
        ),
        "eth2": State(up=False),
    }
    assert files.read_found(path) == {}
    files.write_found(path, found)
    assert files.read_found(path) == found
    assert path.stat().st_mode & 0o777 == 0o600
    files.write_found(path, {})
    assert not path.exists()
    path.write_text("{}x")
    with pytest.raises(NetworkError, match="does not say"):
        files.read_found(path)


async def until_reaped(descriptor: int) -> None:
    """Raises `ProcessLookupError` once the process is gone altogether."""
    async with asyncio.timeout(20):
        while True:
            signal.pidfd_send_signal(descriptor, 0)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("obedient", [True, False])
async def test_helpers_are_found_by_what_only_they_say_and_ended(
    tmp_path: Path, obedient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domzero.host.network.helpers.END_SECONDS", 5.0 if obedient else 0.2)
    sign = f"{tmp_path}/mine/"
    program = "import signal, sys\n" + ("" if obedient else "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
    program += "print('there', flush=True)\nsignal.pause()\n"
    helpers = Helpers()
    helpers.start([sys.executable, "-c", program, f"{sign}settings"], tmp_path / "log")
    async with asyncio.timeout(20):
        while "there" not in await asyncio.to_thread((tmp_path / "log").read_text):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    (pid,) = helpers.find(sign)
    gone = os.pidfd_open(pid)
    assert Helpers().find(sign).keys() == {pid}
    assert helpers.find(f"{tmp_path}/min/") == {}
    await Helpers().end(sign)
    assert helpers.find(sign) == {}
    with pytest.raises(ProcessLookupError):  # reaped, too
        await until_reaped(gone)
    os.close(gone)
    helpers.close()


async def test_a_helper_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no-such-program cannot be started"):
        Helpers().start(["no-such-program"], tmp_path / "log")


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a process of another user")
@pytest.mark.root
def test_another_users_process_counts_only_if_root_says_so(tmp_path: Path) -> None:
    sign, known = f"{tmp_path}/mine/", tmp_path / "pid"
    argv = ["setpriv", "--reuid", "65534", "--clear-groups", "sh", "-c", "echo there; read x", f"{sign}x"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        try:
            assert Helpers().find(sign, known) == {}
            known.write_text(f"{process.pid}\n")
            assert Helpers().find(sign, known).keys() == {process.pid}
        finally:
            process.send_signal(signal.SIGKILL)


async def test_user_mode_refuses_what_takes_rights() -> None:
    backend = UserNetwork()
    inside = BridgeSpec("xapi0", dhcp_server=DhcpServer("192.0.2.1/24", "192.0.2.2", "192.0.2.9"))
    await backend.apply(NetworkPlan(interfaces=(InterfaceSpec("eth0"),), bridges=(inside, BridgeSpec("xapi1"))))
    assert await backend.devices() == []
    static = AddressSpec(AddressMode.STATIC, "192.0.2.7/24")
    for plan in (
        NetworkPlan(bridges=(BridgeSpec("xenbr0", uplink="eth0", addresses=static),)),
        NetworkPlan(bonds=(BondSpec("bond0", ("eth0",), "lacp"),)),
        NetworkPlan(interfaces=(InterfaceSpec("eth0", {"mtu": "9000"}),)),
    ):
        with pytest.raises(NetworkError, match="needs root's rights"):
            await backend.apply(plan)
    card = CardSpec(1, 0, "02:00:00:00:00:01", 1500, "xapi0")
    await backend.configure(card)
    for rules in (CardRules(LockingMode.DISABLED), CardRules(kilobytes_per_second=1)):
        with pytest.raises(NetworkError, match="cannot restrict"):
            await backend.connect(CardSpec(1, 0, card.mac, 1500, "xapi0", rules))
