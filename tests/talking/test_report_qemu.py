"""What a real guest tells of itself, and how soon the API has it."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.talking.guest import TalkingGuest, seconds_until, shows, soon

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

ADDED = "192.0.2.7"


def test_what_the_guest_is_stands_in_its_metrics(guest: TalkingGuest) -> None:
    record = guest.metrics()
    inside = guest.run("uname -r; awk '/^MemTotal/ { print $2 }' /proc/meminfo; stat -f -c '%b %S' /data").splitlines()
    blocks, block = inside[2].split()
    assert record["os_version"] == {
        "name": "Tiny Linux 1.2 (Talking)", "distro": "tiny", "major": "1", "minor": "2", "uname": inside[0],
    }  # fmt: skip
    assert record["PV_drivers_version"] == {"major": "1", "minor": "0", "micro": "0", "build": "1"}
    assert record["PV_drivers_up_to_date"]
    assert record["PV_drivers_detected"]
    assert record["live"]
    assert record["memory"]["total"] == inside[1]
    assert 0 < int(record["memory"]["free"]) < int(inside[1])
    disk = {name: value for name, value in record["disks"].items() if name != "0/free"}
    size = str(int(blocks) * int(block))
    assert disk == {"0/name": "/dev/vda", "0/mount_points/0": "/data", "0/filesystem": "ext4", "0/size": size}
    assert record["networks"]["0/ip"] == record["networks"]["0/ipv4/0"] == "10.0.2.15"
    assert record["can_use_hotplug_vbd"] == record["can_use_hotplug_vif"] == "yes"
    features = ("shutdown", "poweroff", "halt", "reboot", "suspend", "sysrq", "vcpu-hotplug", "ts", "ts2")
    assert record["other"] == {f"feature-{name}": "1" for name in features} | {"data-ts": "0"}
    updated = datetime.strptime(str(record["last_updated"]), "%Y%m%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - updated).total_seconds()) < 300


def test_an_address_is_in_the_api_within_a_second(guest: TalkingGuest) -> None:
    """The address comes and goes five times; time is the host's, from before the command was sent to the guest."""
    taken = []
    for verb, is_there in (("add", True), ("del", False)) * 5:
        guest.send(f"ip address {verb} {ADDED}/32 dev eth0")
        taken.append(seconds_until(partial(shows, guest, ADDED, is_there)))
    assert sorted(taken)[-2] < 1, taken


def test_only_what_has_changed_is_written(guest: TalkingGuest) -> None:
    """Who watches all of the guest hears of its new address and the end of the report, and of nothing else."""
    events: list[str] = []
    home = f"/local/domain/{guest.domid}"

    async def listen() -> None:
        async with guest.store.watch(home) as changes:
            async for path in changes:
                events.append(path.removeprefix(home))

    task = asyncio.run_coroutine_threadsafe(listen(), guest.host.loop)
    try:
        soon(lambda: events == [""])
        before = guest.metrics()
        guest.run(f"ip address add {ADDED}/32 dev eth0")
        soon(lambda: "/attr/vif/0/ipv4/1" in events and events[-1] == "/data/updated")
        soon(lambda: guest.metrics() != before)
        # Memory and disks are never at rest, and the network's router gives out IPv6 addresses when it likes.
        restless = ("/data/meminfo", "/data/volumes", "/attr/vif/0/ipv6")
        said = {path for path in events if path and not path.startswith(restless)}
        assert said == {"/attr/vif/0/ipv4/1", "/data/updated"}
        with guest.held_agent():
            first = guest.metrics()
            guest.report(b"again")
            assert guest.metrics() == first, "a report that says nothing new changes no row"
        guest.run(f"ip address del {ADDED}/32 dev eth0")
        soon(lambda: shows(guest, ADDED, False))
    finally:
        task.cancel()


def test_vm_data_is_seen_inside_and_nothing_else_of_xenstore_data(guest: TalkingGuest) -> None:
    assert guest.run("xenstore-read vm-data/foo") == "bar"
    assert guest.run("xenstore-list vm-data") == "foo"
    assert "hidden" not in guest.run("xenstore-ls /local/domain/$(xenstore-read domid)")
    guest.api.VM.add_to_xenstore_data(guest.vm, "vm-data/later/on", "1")
    assert guest.eventually("xenstore-read vm-data/later/on") == "1"
    guest.api.VM.remove_from_xenstore_data(guest.vm, "vm-data/later/on")
    guest.eventually("! xenstore-exists vm-data/later")


def test_the_whole_machine_is_described_inside(guest: TalkingGuest) -> None:
    told = dict(re.findall(r'^(\S+) = "(.*)"$', guest.run("xenstore-ls -f /local/domain/$(xenstore-read domid)"), re.M))
    here = {path.split("/", 4)[4]: value for path, value in told.items() if path.count("/") > 3}
    record = guest.api.VM.get_record(guest.vm)
    vif = guest.api.VIF.get_record(record["VIFs"][0])
    expected = {
        "name": "talks",
        "vm": f"/vm/{record['uuid']}",
        "domid": str(guest.domid),
        "memory/target": str(int(record["memory_target"]) // 1024),
        "memory/static-max": str(int(record["memory_static_max"]) // 1024),
        "cpu/0/availability": "online",
        "cpu/1/availability": "offline",
        "device/vif/0/mac": vif["MAC"].lower(),
        "device/vbd/51712/device-type": "disk",
        "device/vbd/51712/mode": "w",
        "console/type": "ioemu",
    }
    assert {path: here.get(path) for path in expected} == expected
    assert guest.run("xenstore-read $(xenstore-read vm)/uuid") == record["uuid"]
