"""Agents that lie: whatever a guest writes, its rows are bounded, fit for documents, and harm nobody else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from domzero.datamodel.graph import GRAPH
from domzero.host.xenstore.limits import DEFAULT
from domzero.host.xenstore.protocol import XenstoreError
from domzero.idl.types import RecordOf, Ref
from domzero.toolstack.xenstore.report import LONGEST, MOST_ENTRIES
from domzero.wire.xmlrpc import XmlEncoder, decode_response
from tests.toolstack.xenstore.conftest import Host, Insider

MAPS = ("PV_drivers_version", "os_version", "memory", "disks", "networks", "other")
NAMES = 24
"""Bytes of the names that the tests' agents use, at most."""
REPORTED = (
    "attr/PVAddons/MajorVersion", "attr/PVAddons/MinorVersion", "attr/PVAddons/MicroVersion",
    "attr/PVAddons/Application", "attr/eth0/ip", "attr/vif/0/ipv4/0", "attr/vif/0/ipv6/0", "attr/os/spmajor",
    "data/os_name", "data/os_uname", "data/meminfo_free", "data/meminfo_total", "data/volumes/0/name", "data/ts",
    "data/cant_suspend_reason", "data/updated", "drivers/0", "control/feature-suspend", "control/feature-ts",
    "control/feature-shutdown", "feature/hotplug/vbd",
)  # fmt: skip


def flood(guest: Insider, paths: list[str], value: bytes) -> int:
    """Write as many of the nodes as the store takes; how many."""
    for number, path in enumerate(paths):
        try:
            guest.write(path, value)
        except XenstoreError as error:
            if error.code != "ENOSPC":
                raise
            return number
    return len(paths)


async def record(host: Host, vm: Ref) -> dict[str, Any]:
    """The guest metrics as clients get them, in both wire formats."""
    metrics = await host.world.call("VM.get_guest_metrics", vm)
    found = await host.world.call("VM_guest_metrics.get_record", metrics)
    answer = decode_response(XmlEncoder(GRAPH).encode_answer(RecordOf("VM_guest_metrics"), found))
    assert {name: answer["Value"][name] for name in MAPS} == {name: found[name] for name in MAPS}
    assert orjson.loads(orjson.dumps({name: found[name] for name in MAPS})) == {name: found[name] for name in MAPS}
    return dict(found)


def bounded(fields: dict[str, Any]) -> bool:
    return all(
        len(fields[name]) <= MOST_ENTRIES
        and all(len(key) <= NAMES and len(value) <= LONGEST for key, value in fields[name].items())
        for name in MAPS
    )


@pytest.mark.parametrize(
    "path", ["control/k{0}", "attr/os/k{0}", "drivers/k{0}", "attr/eth{0}/ip", "data/volumes/{0}/name", "data/x{0}"]
)
async def test_thousands_of_keys(host: Host, path: str) -> None:
    vm = await host.started()
    guest, honest = host.insider(vm), await host.started()
    guest.report()
    written = flood(guest, [path.format(number) for number in range(5000)], b"x" * DEFAULT.value_size)
    assert written < DEFAULT.nodes
    host.insider(honest).report(attr__eth0__ip="10.0.0.5")
    await host.a_second()
    await host.a_second()
    assert bounded(await record(host, vm))
    assert (await record(host, honest))["networks"] == {"0/ip": "10.0.0.5"}
    topic = path.split("/")[0]
    for name in guest.directory(topic):
        guest.remove(f"{topic}/{name}")
    guest.report(attr__eth0__ip="10.0.0.6")
    await host.a_second()
    assert (await record(host, vm))["networks"] == {"0/ip": "10.0.0.6"}, "the truth is as good as any other's"


async def test_huge_values_are_refused_by_the_store(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report(data__os_name="Debian")
    with pytest.raises(XenstoreError, match="ENOSPC"):
        guest.write("data/os_name", b"x" * (DEFAULT.value_size + 1))
    await host.a_second()
    assert (await record(host, vm))["os_version"]["name"] == "Debian"


@pytest.mark.parametrize("value", [b"\xff" * 2048, b"\x00\x1b[2J\x85", b"\xed\xa0\x80\xef\xbf\xbf", b"<&]]>\r\n", b"",
                                   "\u202e".encode() * 600])  # fmt: skip
async def test_values_that_are_no_text(host: Host, value: bytes) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    assert flood(guest, list(REPORTED), value) == len(REPORTED)
    await host.a_second()
    found = await record(host, vm)
    assert bounded(found)
    assert found["can_use_hotplug_vbd"] == "unspecified"
    record_of_vm = await host.world.call("VM.get_record", vm)
    XmlEncoder(GRAPH).encode_answer(RecordOf("VM"), record_of_vm)
    if value:
        code, *_, reason = await host.world.fails("VM.suspend", vm)
        assert code == "VM_NON_SUSPENDABLE"
        assert len(reason) <= LONGEST


async def test_what_is_deep_is_not_followed_for_ever(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.write("data/" + "/".join("d" * 400), b"")
    guest.write("attr/os/" + "/".join("d" * 400), b"")
    guest.report(data__os_name="Debian")
    await host.a_second()
    assert (await record(host, vm))["os_version"]["name"] == "Debian"


async def test_an_agent_that_changes_everything_all_the_time_makes_few_changes(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report()
    paths = [f"control/k{number}" for number in range(900)]
    assert flood(guest, paths, b"0") == len(paths)
    await host.a_second()
    database = host.world.stack.database
    before = database.generation
    for number in range(100):
        for path in paths[:50]:
            guest.write(path, str(number).encode())
        await host.world.clock.advance(0.02)
    assert database.generation - before <= 2 / 0.7 + 2, "a look at 900 nodes makes the next one wait for 0.7 seconds"


async def test_a_liar_still_can_be_halted_and_leaves_nothing(host: Host) -> None:
    vm = await host.started()
    guest = host.insider(vm)
    guest.report()
    flood(guest, [f"control/k{number}" for number in range(5000)], b"\xff" * 2000)
    await host.a_second()
    await host.world.call("VM.hard_shutdown", vm)
    assert host.metrics(vm) is None
    assert host.world.stack.database.refs("VM_guest_metrics") == ()
    assert not host.service.local.exists(guest._client.home)
