"""What is measured of a host: the sources that there are, their values, alerts, and what happens to history."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from domzero.host.clock import ManualClock
from domzero.idl.types import Ref
from domzero.toolstack.metrics import Metrics
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.owners import DIRECTORY, owner_of
from domzero.toolstack.rrd.store import ArchiveStore
from tests.toolstack.vm.world import MIB, World, world

SIM = {"mac_seed": "s", "sim:cpu-load": "0.5", "sim:read-rate": "2048", "sim:write-rate": "1048576"}


async def started(host: World, **other_config: str) -> Ref:
    vm = await host.machine(disks=1, cards=1, other_config={**SIM, **other_config})
    await host.call("VM.start", vm, False, False)
    return vm


async def measured(host: World, rounds: int, metrics: Metrics | None = None) -> Metrics:
    """So many rounds, five seconds apart."""
    metrics = metrics or Metrics(host.stack)
    for _ in range(rounds):
        await metrics.measure()
        await host.clock.advance(5)
    return metrics


async def sources(host: World, cls: str, ref: Ref) -> dict[str, dict[str, Any]]:
    return {it["name_label"]: dict(it) for it in await host.call(f"{cls}.get_data_sources", ref)}


def owner(host: World, cls: str, ref: Ref) -> Owner:
    return owner_of(host.stack.database, cls, ref)


async def test_the_sources_of_a_machine(host: World) -> None:
    vm = await started(host)
    await measured(host, 3)
    found = await sources(host, "VM", vm)
    assert {name: it["value"] for name, it in found.items() if it["enabled"]} == {
        "cpu0": pytest.approx(0.5), "memory": 128 * MIB, "memory_target": 128 * MIB,
        "vif_0_rx": pytest.approx(2000), "vif_0_tx": pytest.approx(500),
        "vbd_xvda_read": pytest.approx(2048), "vbd_xvda_write": pytest.approx(MIB),
    }  # fmt: skip
    assert found["vbd_xvda_io_throughput_write"]["value"] == pytest.approx(1.0)
    assert all(it["enabled"] == it["standard"] for it in found.values())
    assert (found["cpu0"]["units"], found["cpu0"]["min"], found["cpu0"]["max"]) == ("(fraction)", 0.0, 1.0)
    assert await host.call("VM.query_data_source", vm, "cpu0") == pytest.approx(0.5)


async def test_the_sources_of_the_host_and_of_its_repository(host: World) -> None:
    await started(host)
    await started(host)
    await measured(host, 5)
    found = await sources(host, "host", host.stack.host)
    sr = host.get("pool", host.stack.pool, "default_SR")
    short = host.get("SR", sr, "uuid")[:8]
    assert {
        "cpu0",
        "cpu_avg",
        "loadavg",
        "memory_total_kib",
        "memory_free_kib",
        "xapi_memory_usage_kib",
    } <= found.keys()
    assert found["running_domains"]["value"] == 2
    assert found[f"io_throughput_write_{short}"]["value"] == pytest.approx(2.0)
    assert found["pif_aggr_rx"]["value"] == pytest.approx(found["pif_eth0_rx"]["value"] * 2)
    of_repository = await sources(host, "SR", sr)
    assert of_repository["io_throughput_total"]["value"] == pytest.approx(2.0 + 2 * 2048 / MIB)
    assert await sources(host, "SR", host.stack.database.refs("SR")[-1]) in ({}, of_repository)


async def test_the_control_domain_is_the_host(host: World) -> None:
    control = host.get("host", host.stack.host, "control_domain")
    await measured(host, 2)
    found, whole = await sources(host, "VM", control), await sources(host, "host", host.stack.host)
    assert {"cpu0", "memory", "memory_target"} <= found.keys()
    assert found["memory_target"]["value"] == whole["memory_total_kib"]["value"] * 1024
    assert 0 < found["memory"]["value"] < found["memory_target"]["value"]


async def test_recording_and_forgetting(host: World) -> None:
    vm = await started(host)
    await measured(host, 2)
    await host.call("VM.record_data_source", vm, "cpu_usage")
    await host.call("VM.forget_data_source_archives", vm, "memory")
    found = await sources(host, "VM", vm)
    assert (found["cpu_usage"]["enabled"], found["memory"]["enabled"]) == (True, False)
    assert (found["cpu_usage"]["standard"], found["memory"]["standard"]) == (False, True)
    for cls, ref in (("VM", vm), ("host", host.stack.host)):
        for message in ("query_data_source", "record_data_source", "forget_data_source_archives"):
            assert await host.fails(f"{cls}.{message}", ref, "nonsense") == ("INVALID_VALUE", "data_source", "nonsense")
    await host.call("host.forget_data_source_archives", host.stack.host, "loadavg")
    assert not (await sources(host, "host", host.stack.host))["loadavg"]["enabled"]


async def test_what_was_decided_is_on_disk_before_it_is_answered(host: World) -> None:
    vm = await started(host)
    await measured(host, 2)
    store = ArchiveStore(host.stack.settings.state_dir / DIRECTORY)
    await host.call("VM.record_data_source", vm, "cpu_usage")
    kept = store.load(owner(host, "VM", vm))
    assert kept is not None
    assert kept.chosen == {"cpu_usage": True}
    await host.call("VM.forget_data_source_archives", vm, "cpu_usage")
    kept = store.load(owner(host, "VM", vm))
    assert kept is not None
    assert kept.chosen == {"cpu_usage": False}


async def test_a_machine_that_does_not_run(host: World) -> None:
    vm = await host.machine()
    assert (await host.fails("VM.get_data_sources", vm))[0] == "VM_BAD_POWER_STATE"
    assert (await host.fails("VM.query_data_source", vm, "cpu0"))[0] == "VM_BAD_POWER_STATE"


async def test_history_outlives_a_shutdown_and_goes_with_the_machine(host: World) -> None:
    vm = await started(host)
    metrics = await measured(host, 10)
    whose = owner(host, "VM", vm)
    await host.call("VM.hard_shutdown", vm)
    await measured(host, 1, metrics)
    assert host.stack.archives.get(whose) is None
    kept = await host.stack.archives.kept(whose)
    assert kept is not None
    assert kept.steps_done > 0
    await host.call("VM.start", vm, False, False)
    await measured(host, 2, metrics)
    again = host.stack.archives.get(whose)
    assert again is not None
    newest = again.steps_done
    assert [value for value in again.rows(again.names["memory"], 0, "AVERAGE", newest - 20, newest) if value == value]
    await host.call("VM.hard_shutdown", vm)
    await host.call("VM.destroy", vm)
    await measured(host, 1, metrics)
    assert await host.stack.archives.kept(whose) is None


async def test_counters_of_a_new_boot_are_no_rate(host: World) -> None:
    vm = await started(host)
    metrics = await measured(host, 3)
    await host.call("VM.hard_reboot", vm)
    await metrics.measure()
    value = await host.call("VM.query_data_source", vm, "cpu0")
    assert value != value
    await host.clock.advance(5)
    await metrics.measure()
    assert await host.call("VM.query_data_source", vm, "cpu0") == pytest.approx(0.5)


async def test_history_outlives_the_daemon(tmp_path: Path) -> None:
    clock = ManualClock()
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as host:
        vm = await started(host)
        await measured(host, 10)
        whose = owner(host, "VM", vm)
        await host.call("host.backup_rrds", host.stack.host, 0.0)
        assert (await host.fails("host.backup_rrds", host.stack.host, -1.0))[0] == "INVALID_VALUE"
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as host:
        await measured(host, 3)
        archive = host.stack.archives.get(whose)
        assert archive is not None
        newest = archive.steps_done
        values = archive.rows(archive.names["cpu0"], 0, "AVERAGE", newest - 11, newest)
        assert sum(value == value for value in values) >= 10


async def test_extremes_are_kept_where_the_pool_wants_them(host: World) -> None:
    await host.call("pool.set_other_config", host.stack.pool, {"create_min_max_in_new_VM_RRDs": "true"})
    vm = await started(host)
    await measured(host, 1)
    archive = host.stack.archives.get(owner(host, "VM", vm))
    assert archive is not None
    assert archive.functions == ("AVERAGE", "MIN", "MAX")


def alarms(host: World) -> list[dict[str, Any]]:
    return [dict(row.record) for row in host.stack.database.rows("message").values() if row.record["name"] == "ALARM"]


def config(name: str, level: str, extra: str = "") -> str:
    inside = f'<name value="{name}"/><alarm_trigger_level value="{level}"/>{extra}'
    return f"<config><variable>{inside}</variable></config>"


async def test_alerts(host: World) -> None:
    vm = await started(host, perfmon=config("cpu_usage", "0.3", '<alarm_priority value="2"/>'))
    await started(host, perfmon=config("cpu_usage", "0.9"))
    sr = host.get("pool", host.stack.pool, "default_SR")
    await host.call("SR.set_other_config", sr, {"perfmon": config("sr_io_throughput_total_per_host", "1")})
    metrics = await measured(host, 13)
    found = {alarm["cls"]: alarm for alarm in alarms(host)}
    assert len(alarms(host)) == len(found) == 2
    uuid = host.get("VM", vm, "uuid")
    assert (found["VM"]["obj_uuid"], found["VM"]["priority"]) == (uuid, 2)
    first, second, xml = found["VM"]["body"].split("\n", 2)
    assert (round(float(first.removeprefix("value: ")), 2), second) == (0.5, "config:")
    assert ET.fromstring(xml).find("name[@value='cpu_usage']") is not None
    short = host.get("SR", sr, "uuid")[:8]
    assert f'value="sr_io_throughput_total_{short}"' in found["Host"]["body"]
    # Once told of, nobody wants to hear it again for an hour.
    await measured(host, 24, metrics)
    assert len(alarms(host)) == 2


async def test_alerts_of_repositories_and_of_the_control_domain(host: World) -> None:
    sr = host.get("pool", host.stack.pool, "default_SR")
    host.change("SR", sr, physical_utilisation=host.get("SR", sr, "physical_size"))
    await host.call("SR.set_other_config", sr, {"perfmon": config("physical_utilisation", "0.8")})
    control = host.get("host", host.stack.host, "control_domain")
    await host.call("VM.add_to_other_config", control, "perfmon", config("mem_usage", "0.00001"))
    await measured(host, 13)
    assert sorted(alarm["cls"] for alarm in alarms(host)) == ["SR", "VM"]


async def test_alerts_that_make_no_sense_are_logged_once(host: World, caplog: pytest.LogCaptureFixture) -> None:
    await started(host, perfmon="<!DOCTYPE a><a/>")
    await measured(host, 26)
    assert alarms(host) == []
    assert caplog.text.count("asks for nothing that can be done") == 1


@pytest.mark.parametrize("extra", ['<alarm_priority value="1e19"/>', f'<rrd_regex value="{".?" * 28}Z"/>'])
async def test_alerts_that_would_be_the_end_of_a_daemon_are_refused(host: World, extra: str) -> None:
    await started(host, perfmon=config("cpu_usage", "0.1", extra))
    other = await started(host, perfmon=config("cpu_usage", "0.1"))
    await measured(host, 13)
    assert [alarm["obj_uuid"] for alarm in alarms(host)] == [host.get("VM", other, "uuid")]


async def test_a_host_that_does_not_tell_is_asked_again(
    host: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when no descriptor is left to open a file with: the machines are measured meanwhile."""

    def refuse(_: object) -> float:
        raise OSError(errno.EMFILE, "Too many open files")

    vm = await started(host)
    metrics = await measured(host, 2)
    with monkeypatch.context() as context:
        context.setattr(type(host.stack.facts), "load_average", refuse)
        await measured(host, 2, metrics)
    assert "Too many open files" in caplog.text
    assert await host.call("VM.query_data_source", vm, "cpu0") == pytest.approx(0.5)
    await measured(host, 2, metrics)
    assert await host.call("host.query_data_source", host.stack.host, "loadavg") >= 0
