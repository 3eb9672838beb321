"""Two hosts of Open vSwitch, joined by a cable: one serves its network, the other gets its address from there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.network.plan import NetworkPlan
from tests.host.network.switched import NEEDS, SwitchedHost, switched_host
from tests.host.network.test_dhcp import ASKING, MAC, SERVED, addressed, running

pytestmark = [
    *NEEDS,
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="needs dnsmasq"),
    pytest.mark.skipif(not (shutil.which("udhcpc") or shutil.which("busybox")), reason="needs udhcpc"),
]


@pytest.fixture
async def hosts(namespace: Path, elsewhere: Path, tmp_path: Path) -> AsyncIterator[tuple[SwitchedHost, SwitchedHost]]:
    """The one that serves, and the one that asks."""
    places = [tmp_path / name for name in ("server", "client")]
    for place in places:
        place.mkdir()
    async with switched_host(namespace, places[0]) as server, switched_host(elsewhere, places[1]) as client:
        await client.interface("eth1", namespace, MAC)
        yield server, client


async def test_an_address_for_the_other_host_and_its_way_to_the_server(
    hosts: tuple[SwitchedHost, SwitchedHost],
) -> None:
    server, client = hosts
    await server.backend.apply(SERVED)
    await server.kernel("link", "set", index="far-eth1", state="up")
    server.switch.control("add-port", "xapi9", "far-eth1")
    await client.backend.apply(ASKING)
    await addressed(client, "xenbr1", {"192.0.2.100/24"}, "default via 192.0.2.1 dev xenbr1")
    assert " 0% packet loss" in await client.command("busybox", "ping", "-c", "2", "-W", "5", "192.0.2.1")
    (device,) = await client.backend.devices()
    assert (device.addresses, device.gateway, device.carrier) == (("192.0.2.100/24",), "192.0.2.1", True)
    before = running(client) | running(server)
    assert len(before) == 2
    for host, plan in ((server, SERVED), (client, ASKING)):
        again = host.another()
        await again.open()
        await again.apply(plan)
        await again.close()
    assert running(client) | running(server) == before
    for host in hosts:
        await host.backend.apply(NetworkPlan())
        assert running(host) == {}
