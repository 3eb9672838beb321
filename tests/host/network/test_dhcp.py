"""Two hosts joined by a cable: one gives addresses to its network, the other gets its own from there."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.network.helpers import Helpers
from domzero.host.network.plan import AddressMode, AddressSpec, BridgeSpec, DhcpServer, NetworkPlan
from domzero.host.network.protocol import NetworkError
from tests.host.network.packets import IPV4, UDP, ipv4, udp
from tests.host.network.stage import GUEST, Host, card, exchange, frame

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="needs dnsmasq"),
    pytest.mark.skipif(not (shutil.which("udhcpc") or shutil.which("busybox")), reason="needs udhcpc"),
]

SERVER = DhcpServer("192.0.2.1/24", "192.0.2.100", "192.0.2.100", "inside.example", masquerade=True)
SERVED = NetworkPlan(bridges=(BridgeSpec("xapi9", dhcp_server=SERVER),))
ASKING = NetworkPlan(bridges=(BridgeSpec("xenbr1", uplink="eth1", addresses=AddressSpec(AddressMode.DHCP)),))
MAC = "02:00:00:00:00:71"


@pytest.fixture
async def client(host: Host, elsewhere: Path) -> AsyncIterator[Host]:
    """The other host; the far end of its cable is on the first one's network."""
    directory = host.directory / "client"
    directory.mkdir()
    client = Host(elsewhere, directory)
    await client.thread.open()
    await client.backend.open()
    await client.interface("eth1", host.namespace, MAC)
    yield client
    await client.backend.apply(NetworkPlan())
    await client.backend.close()
    await client.thread.close()


def running(host: Host) -> dict[int, list[str]]:
    """The programs that serve a host's networks."""
    directory = host.directory / "network"
    found = Helpers().find(f"{directory}/")
    for known in directory.glob("server/*/pid"):
        found |= Helpers().find(f"--conf-file={known.parent}/", known)
    # The client's script, which comes and goes, has the same files.
    return {pid: argv for pid, argv in found.items() if {"dnsmasq", "udhcpc"} & set(argv[:2])}


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what another program does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)


async def addressed(host: Host, name: str, expected: set[str], route: str = "") -> None:
    """Wait for a lease: addresses come when the other side answers, and a route after them."""
    async with asyncio.timeout(60):
        while await host.addresses(name) != expected:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)
        while route not in await host.command("ip", "route"):  # noqa: ASYNC110 - nor here
            await asyncio.sleep(0.05)


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.slow
async def test_a_network_with_addresses_of_its_own_serves_another_host(host: Host, client: Host) -> None:
    client.resolver.write_text("nameserver 203.0.113.53\n")
    await host.backend.apply(SERVED)
    await host.kernel("link", "set", index="far-eth1", master="xapi9", state="up")
    assert await host.addresses("xapi9") == {"192.0.2.1/24"}
    await client.backend.apply(ASKING)
    await addressed(client, "xenbr1", {"192.0.2.100/24"})
    await until(lambda: "nameserver 192.0.2.1\n" in client.resolver.read_text())
    assert "search inside.example" in client.resolver.read_text()
    assert "default via 192.0.2.1 dev xenbr1" in await client.command("ip", "route")
    (device,) = await client.backend.devices()
    assert (device.addresses, device.gateway, device.dns) == (("192.0.2.100/24",), "192.0.2.1", ("192.0.2.1",))

    # A daemon that is started again finds both running, and leaves them.
    before = running(host) | running(client)
    assert len(before) == 2
    for one, plan in ((host, SERVED), (client, ASKING)):
        again = one.another()
        await again.open()
        await again.apply(plan)
        await again.close()
    assert running(host) | running(client) == before
    assert await client.addresses("xenbr1") == {"192.0.2.100/24"}

    await client.backend.apply(replace(ASKING, bridges=(replace(ASKING.bridges[0], addresses=AddressSpec()),)))
    assert running(client) == {}
    assert await client.addresses("xenbr1") == set()
    assert client.resolver.read_text() == "nameserver 203.0.113.53\n"
    await host.kernel("link", "set", index="far-eth1", master=0)
    await host.backend.apply(NetworkPlan())
    assert running(host) == {}
    assert "xapi9" not in await host.names()


@pytest.mark.slow
async def test_masquerading_opens_the_way_out_only_and_is_undone(host: Host) -> None:
    async def forwarding() -> str:
        return await host.thread.run(lambda _: Path("/proc/sys/net/ipv4/ip_forward").read_text().strip())

    assert await forwarding() == "0"
    await host.backend.apply(SERVED)
    assert await forwarding() == "1"
    rules = await host.command("nft", "list", "ruleset")
    assert 'oifname != "xapi9" ip saddr 192.0.2.0/24 ip daddr != 192.0.2.0/24 masquerade' in rules
    second = BridgeSpec(
        "xapi8", dhcp_server=replace(SERVER, address="198.51.100.1/24", first="198.51.100.2", last="198.51.100.9")
    )
    await host.backend.apply(NetworkPlan(bridges=(*SERVED.bridges, second)))
    await host.backend.apply(NetworkPlan(bridges=(second,)))
    assert await forwarding() == "1"
    assert "192.0.2.0/24" not in await host.command("nft", "list", "ruleset")
    assert (await host.names(), len(running(host))) == ({"xapi8"}, 1)
    await host.backend.apply(NetworkPlan(bridges=(replace(second, dhcp_server=replace(SERVER, masquerade=False)),)))
    assert await forwarding() == "0"
    assert "masquerade" not in await host.command("nft", "list", "ruleset")


@pytest.mark.slow
async def test_machines_of_a_masqueraded_network_reach_each_other_unchanged(host: Host) -> None:
    """Where the kernel filters bridged packets, they pass the rules for routed ones."""
    await host.backend.apply(SERVED)
    for domid in (1, 2):
        await host.backend.connect(card(domid, bridge="xapi9", mac=f"02:00:00:00:00:0{domid}"))
    first, second = await host.machine("vif1.0"), await host.machine("vif2.0")
    try:
        datagram = ipv4("192.0.2.150", "192.0.2.151", udp(4000, 4001), UDP)
        group = ipv4("192.0.2.150", "224.0.0.251", udp(5353, 5353), UDP)
        sent = [frame(GUEST, payload=packet, kind=IPV4) for packet in (datagram, group)]
        arrived = await exchange(first, second, sent, frame(GUEST))
        assert [data for data in sent if data not in arrived] == []
    finally:
        os.close(first)
        os.close(second)
        for domid in (1, 2):
            await host.backend.disconnect(domid, 0)


@pytest.mark.slow
async def test_the_server_has_no_rights_and_its_files_are_private(host: Host) -> None:
    await host.backend.apply(SERVED)
    (pid,) = running(host)
    assert status(pid)["Uid"].split()[0] != "0"
    (configuration,) = (host.directory / "network" / "server" / "xapi9").glob("*.conf")
    assert configuration.stat().st_mode & 0o777 == 0o600
    process = os.pidfd_open(pid)
    os.kill(pid, 9)
    await until(lambda: bool(select.select([process], [], [], 0)[0]))  # its sockets are closed then
    os.close(process)
    assert running(host) == {}
    await host.backend.apply(SERVED)
    assert len(running(host)) == 1


@pytest.mark.slow
async def test_a_server_that_cannot_start_undoes_the_plan(host: Host) -> None:
    before = await host.names()
    await host.kernel("link", "set", index="lo", state="up")
    # Somebody listens where the server would on the second network's address.
    await host.kernel("addr", "add", index="lo", address="198.51.100.1", prefixlen=32)
    squatter = await host.thread.run(lambda _: _listen("198.51.100.1"))
    other = replace(SERVER, address="198.51.100.1/24", first="198.51.100.2", last="198.51.100.9")
    try:
        with pytest.raises(NetworkError, match="DHCP server of xapi8 cannot be started"):
            await host.backend.apply(NetworkPlan(bridges=(*SERVED.bridges, BridgeSpec("xapi8", dhcp_server=other))))
    finally:
        squatter.close()
    assert (await host.names(), running(host)) == (before, {})


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 53))
    listener.listen()
    return listener


async def test_a_plan_that_cannot_be_served_is_refused_before_anything_is_done(host: Host) -> None:
    for server in (
        replace(SERVER, first="198.51.100.1"),
        replace(SERVER, last="192.0.2.99"),
        replace(SERVER, address="192.0.2.1"),
        replace(SERVER, domain="x\nuser=root"),
        replace(SERVER, address="192.0.2.1/33"),
    ):
        with pytest.raises(NetworkError):
            await host.backend.apply(NetworkPlan(bridges=(BridgeSpec("xapi9", dhcp_server=server),)))
    assert await host.names() == set()
