"""The measurement of what is free inside, which only a guest can tell."""

from __future__ import annotations

import math

import pytest

from domzero.idl.types import Ref
from domzero.toolstack.metrics import Metrics
from domzero.toolstack.rrd.machine_sources import memory_free
from tests.toolstack.xenstore.conftest import Host

NAME = "memory_internal_free"


@pytest.mark.parametrize(("said", "kib"), [("0", 0), ("51200", 51200), ("9" * 15, 10**15 - 1)])
def test_amounts(said: str, kib: int) -> None:
    assert memory_free({"free": said}) == kib


@pytest.mark.parametrize("said", ["", "-1", "1.5", "1e9", "0x10", " 7", "7\n", "9" * 16, "nan", "٣", "a lot"])
def test_what_is_no_amount(said: str) -> None:
    assert memory_free({"free": said, "total": "5"}) is None
    assert memory_free({}) is None


async def sources(host: Host, metrics: Metrics, vm: Ref) -> dict[str, dict[str, object]]:
    for _ in range(2):
        await metrics.measure()
        await host.world.clock.advance(5)
    return {row["name_label"]: dict(row) for row in await host.world.call("VM.get_data_sources", vm)}


async def test_it_is_measured_while_the_guest_reports_it(host: Host) -> None:
    metrics = Metrics(host.world.stack)
    vm = await host.started()
    assert NAME not in await sources(host, metrics, vm)
    guest = host.insider(vm)
    guest.report(data__meminfo_free="51200", data__meminfo_total="126000")
    await host.a_second()
    found = await sources(host, metrics, vm)
    assert {key: found[NAME][key] for key in ("value", "units", "enabled", "standard", "min", "max")} == {
        "value": 51200.0, "units": "KiB", "enabled": True, "standard": True, "min": 0.0, "max": math.inf,
    }  # fmt: skip
    assert await host.world.call("VM.query_data_source", vm, NAME) == 51200.0
    assert found["memory"]["value"] == 128 << 20, "the others are where they were"
    guest.report(data__meminfo_free="50000")
    await host.a_second()
    assert (await sources(host, metrics, vm))[NAME]["value"] == 50000.0

    guest.report(data__meminfo_free="plenty")
    await host.a_second()
    assert NAME not in await sources(host, metrics, vm)
    assert await host.world.fails("VM.query_data_source", vm, NAME) == ("INVALID_VALUE", "data_source", NAME)
    guest.report(data__meminfo_free="40000")
    await host.a_second()
    assert (await sources(host, metrics, vm))[NAME]["value"] == 40000.0
    await host.world.clock.advance(400)
    assert NAME not in await sources(host, metrics, vm), "a silent agent says nothing"
