"""What a guest's agent writes comes to be its metrics."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.toolstack.xenstore.report import LONGEST, MOST_ENTRIES, metrics_fields
from tests.toolstack.xenstore.conftest import Host

COMPLETE = {"attr/PVAddons/MajorVersion": b"9", "attr/PVAddons/MinorVersion": b"4", "data/updated": b"1"}


def fields(**nodes: bytes) -> dict[str, Any]:
    found = metrics_fields({**COMPLETE, **{path.replace("__", "/"): value for path, value in nodes.items()}})
    assert found is not None
    return found


def test_networks_by_all_their_names() -> None:
    assert fields(attr__eth0__ip=b"10.0.0.5")["networks"] == {"0/ip": "10.0.0.5"}
    modern = {"attr/vif/1/ipv4/0": b"10.0.0.6", "attr/vif/1/ipv4/1": b"10.0.0.7", "attr/vif/1/ipv6/0": b"fe80::1"}
    found = metrics_fields({**COMPLETE, **modern})
    assert found is not None
    assert found["networks"] == {
        "1/ip": "10.0.0.6", "1/ipv4/0": "10.0.0.6", "1/ipv4/1": "10.0.0.7", "1/ipv6/0": "fe80::1",
    }  # fmt: skip


def test_versions_and_system() -> None:
    found = fields(data__os_name=b"Debian 12", data__os_majorver=b"12", attr__os__spmajor=b"1", drivers__xennet=b"x")
    assert found["os_version"] == {"name": "Debian 12", "major": "12", "spmajor": "1"}
    assert found["PV_drivers_version"] == {"major": "9", "minor": "4", "micro": "-1", "xennet": "x"}
    assert fields(attr__PVAddons__MicroVersion=b"3")["PV_drivers_version"]["micro"] == "3"


def test_file_systems() -> None:
    nodes = {
        "data/volumes": b"",
        "data/volumes/0": b"",
        "data/volumes/0/name": b"/dev/vda1",
        "data/volumes/0/size": b"9",
    }
    nodes |= {"data/volumes/0/mount_points": b"", "data/volumes/0/mount_points/0": b"/", "data/volumes/x/size": b"1"}
    found = metrics_fields({**COMPLETE, **nodes})
    assert found is not None
    assert found["disks"] == {"0/name": "/dev/vda1", "0/size": "9", "0/mount_points/0": "/"}


def test_what_is_incomplete_does_not_hold() -> None:
    for missing in COMPLETE:
        assert metrics_fields({path: value for path, value in COMPLETE.items() if path != missing}) is None


def test_features_and_requests() -> None:
    nodes = {"control/feature-ts": b"1", "control/ts": b"1", "control/shutdown": b"poweroff", "data/ts": b"0"}
    found = metrics_fields({**COMPLETE, **nodes, "control/feature-suspend": b"1"})
    assert found is not None
    assert found["other"] == {"feature-ts": "1", "feature-suspend": "1", "data-ts": "0"}
    busy = metrics_fields({**COMPLETE, "control/feature-suspend": b"1", "data/cant_suspend_reason": b"busy"})
    assert busy is not None
    assert busy["other"] == {"data-cant-suspend-reason": "busy"}


def test_liars_are_bounded() -> None:
    nodes = {f"control/k{number}": b"\xff\x00\x1b" * 1000 for number in range(1000)}
    nodes |= {f"attr/eth{number}/ip": b"x" * 10_000 for number in range(999)}
    found = metrics_fields({**COMPLETE, **nodes, "data/ts": b"1"})
    assert found is not None
    assert found["other"]["data-ts"] == "1"
    for name in ("other", "networks"):
        assert len(found[name]) == MOST_ENTRIES
        assert all(
            len(value) <= LONGEST and "\x00" not in value and "\x1b" not in value for value in found[name].values()
        )


PATHS = (
    "attr/eth0/ip", "attr/vif/0/ipv4/0", "attr/os/spmajor", "control/feature-x", "control/a/b", "data/os_name",
    "data/ts", "data/cant_suspend_reason", "data/meminfo_total", "drivers/0", "feature/hotplug/vbd", "attr", "data",
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), st.binary(max_size=40)))
def test_anything_becomes_text_that_documents_hold(nodes: dict[str, bytes]) -> None:
    found = metrics_fields({**nodes, **COMPLETE})
    assert found is not None
    for value in (value for field in found.values() if isinstance(field, dict) for value in field.values()):
        assert all(character in "\t\n\r" or character >= " " for character in value)
        value.encode()


async def test_metrics_follow_within_a_second(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report(attr__eth0__ip="10.0.0.5", data__meminfo_free="5", control__feature_shutdown="1")
    await host.a_second()
    metrics = host.metrics(vm)
    assert metrics is not None
    assert metrics["networks"] == {"0/ip": "10.0.0.5"}
    assert (metrics["live"], metrics["memory"]) == (True, {"free": "5"})
    guest.say(attr__eth0__ip="10.0.0.6")
    await host.a_second()
    changed = host.metrics(vm)
    assert changed is not None
    assert changed["networks"] == {"0/ip": "10.0.0.6"}
    assert str(changed["last_updated"]) > str(metrics["last_updated"])


async def test_a_row_is_written_only_when_it_changes(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report()
    await host.a_second()
    generation = host.world.stack.database.generation
    for _ in range(3):
        guest.report()
        await host.a_second()
    assert host.world.stack.database.generation == generation


async def test_an_agent_that_falls_silent(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report()
    await host.a_second()
    await host.world.clock.advance(270)
    assert (host.metrics(vm) or {})["live"] is True
    await host.world.clock.advance(70)
    assert (host.metrics(vm) or {})["live"] is False
    guest.report()
    await host.a_second()
    assert (host.metrics(vm) or {})["live"] is True


async def test_metrics_go_with_the_machine(host: Host) -> None:
    vm = await host.started()
    host.insider(vm).report()
    await host.a_second()
    assert host.metrics(vm) is not None
    await host.world.call("VM.hard_shutdown", vm)
    assert host.metrics(vm) is None
    assert host.world.stack.database.refs("VM_guest_metrics") == ()
    await host.world.call("VM.start", vm, False, False)
    await host.a_second()
    assert host.metrics(vm) is None


async def test_a_flood_is_looked_at_now_and_then(host: Host) -> None:
    """Each look that finds something new is one change of the row."""
    vm = await host.started()
    guest = host.insider(vm)
    guest.report()
    await host.a_second()
    seen = set()
    for number in range(200):
        guest.say(control__flood=str(number))
        await host.world.clock.advance(0.01)
        seen.add(str((host.metrics(vm) or {})["other"]))
    assert 2 < len(seen) <= 22
