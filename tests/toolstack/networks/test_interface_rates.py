"""PIF_metrics follow the links and the traffic of the host's interfaces."""

from __future__ import annotations

from dataclasses import replace

from domzero.host.network.sim import INTERFACES, RECEIVED_RATE, SENT_RATE
from domzero.toolstack.network.interface_rates import INTERVAL, InterfaceRates
from tests.toolstack.networks.rows import new_network, pif
from tests.toolstack.vm.world import World


async def test_rates_and_links(host: World) -> None:
    second = pif(host, "eth1")
    vlan = await host.call("VLAN.create", second, 5, await new_network(host))
    metrics = host.get("PIF", second, "metrics")
    rates = InterfaceRates(host.stack)
    await rates.measure()
    assert host.get("PIF_metrics", metrics, "io_read_kbs") == 0
    await host.clock.advance(INTERVAL)
    host.network._interfaces = (INTERFACES[0], replace(INTERFACES[1], speed=100, duplex=False))
    await rates.measure()
    row = host.row("PIF_metrics", metrics)
    assert row["io_read_kbs"] == round(RECEIVED_RATE / 1024, 3)
    assert row["io_write_kbs"] == round(SENT_RATE / 1024, 3)
    assert (row["carrier"], row["speed"], row["duplex"]) == (True, 100, False)
    # A VLAN shows the figures of the interface below it.
    assert host.get("PIF", host.get("VLAN", vlan, "untagged_PIF"), "metrics") == metrics


async def test_a_quiet_moment_makes_no_events(host: World) -> None:
    rates = InterfaceRates(host.stack)
    await rates.measure()
    await host.clock.advance(INTERVAL)
    await rates.measure()
    before = host.stack.database.generation
    await host.clock.advance(INTERVAL / 3)
    await rates.measure()
    await host.clock.advance(INTERVAL)
    await rates.measure()
    assert host.stack.database.generation == before


async def test_a_host_that_does_not_tell_is_asked_again(host: World) -> None:
    rates = InterfaceRates(host.stack)
    host.network.faults["interfaces"] = "out of memory"
    await rates.measure()
    host.network.faults.clear()
    for _ in range(2):
        await host.clock.advance(INTERVAL)
        await rates.measure()
    assert host.get("PIF_metrics", host.get("PIF", pif(host, "eth0"), "metrics"), "io_read_kbs") > 0
