"""The agent on a socket of the real store that belongs to its domain: what it tells, what it does, what it survives."""

from __future__ import annotations

import asyncio
import socket
import struct
from itertools import count
from pathlib import Path

import pytest
from guest.domzero_guest import agent as agent_module
from guest.domzero_guest import processors, session, store
from guest.domzero_guest.netlink import Address

from domzero.wire.xenstore import Operation
from tests.guest.surroundings import HOME, Guest, ask, populate, told, value
from tests.host.xenstore.peers import host, until

NFT = ("nft", "--json", "list", "ruleset")
FIREWALLD = ("systemctl", "is-active", "--quiet", "firewalld.service")
RULESET = b"""{"nftables": [{"table": {"family": "inet", "name": "filter"}},
    {"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input",
               "policy": "drop"}}]}"""


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "root")


async def test_the_guest_is_reported_whole_and_updated_comes_last(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            assert value(serving, "data/os_name") == b"Example Linux 9.4 (Nine)"
            assert value(serving, "data/os_distro") == b"example"
            assert value(serving, "data/os_majorver") == b"9"
            assert value(serving, "data/os_uname") == b"6.1.0-example"
            assert value(serving, "data/meminfo_total") == b"1000000"
            assert value(serving, "data/meminfo_free") == b"400000"
            assert value(serving, "attr/vif/0/ipv4/0") == b"192.0.2.10"
            assert value(serving, "attr/PVAddons/MajorVersion") == b"1"
            assert value(serving, "data/volumes/0/name") == b"/dev/vda1"
            assert value(serving, "control/feature-shutdown") == b"1"
            assert value(serving, "control/feature-vcpu-hotplug") == b"1"


async def test_only_what_has_changed_is_written(tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REPORT", 0.02)
    async with host(tmp_path) as serving:
        watching = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
        await watching.ask(Operation.WATCH, HOME[:-1] + b"\0t\0")
        await watching.event()
        async with guest.agent(await serving.path(1)):
            await asyncio.sleep(0.1)
            guest.now = 2000.0
            guest.write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 300000 kB\n")
            await told(serving, "data/updated", b"19700101T00:33:20Z")
        events = {path.removeprefix(HOME) for path, _ in [await watching.event() for _ in range(3)]}
        # A new agent says that it is there, and what remote desktop does; all else stood there already.
        assert events == {b"data/updated", b"data/ts", b"data/meminfo_free"}


async def test_addresses_follow_the_cards(tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REPORT", 0.02)
    async with host(tmp_path) as serving:
        await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "attr/vif/0/ipv4/0", b"192.0.2.10")
            guest.addresses = [Address(2, socket.AF_INET6, 0, "2001:db8::1")]
            await told(serving, "attr/vif/0/ipv6/0", b"2001:db8::1")
            await told(serving, "attr/vif/0/ipv4", None)
            guest.addresses = []
            await told(serving, "attr/vif/0", None)


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (b"poweroff", ("systemctl", "poweroff")),
        (b"halt", ("systemctl", "poweroff")),
        (b"reboot", ("systemctl", "reboot")),
    ],
)
async def test_shutdown_is_acknowledged_and_done_once(
    tmp_path: Path, guest: Guest, request_: bytes, command: tuple[str, ...]
) -> None:
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            await ask(asking, b"control/shutdown", request_)
            await told(serving, "control/shutdown", b"")
            await until(lambda: command in guest.ran)
        assert [row for row in guest.ran if row[1:] in (("poweroff",), ("reboot",))] == [command]


async def test_a_request_that_came_before_the_agent_is_obeyed(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        await ask(await populate(serving), b"control/shutdown", b"suspend")
        async with guest.agent(await serving.path(1)):
            await told(serving, "control/shutdown", b"")
            await until(lambda: guest.syncs == 1)


@pytest.mark.parametrize("hostile", [b"$(reboot)", b"poweroff; reboot", b"poweroff\0", b"\xff" * 2000, b"Poweroff"])
async def test_values_that_mean_nothing_run_nothing(tmp_path: Path, guest: Guest, hostile: bytes) -> None:
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        for path in (b"control/shutdown", b"control/sysrq", b"control/ts", b"cpu/1/availability", b"device/vif/0/mac"):
            await ask(asking, path, hostile)
        async with guest.agent(await serving.path(1)):
            await told(serving, "control/ts", None)
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            await told(serving, "control/sysrq", b"")
        assert value(serving, "control/shutdown") == hostile, "what is not obeyed is not acknowledged"
        assert not [row for row in guest.ran if row[1:2] not in [("cat",), ("is-active",)]]
        assert guest.read("proc/sysrq-trigger") == ""
        assert guest.read("sys/devices/system/cpu/cpu1/online") == "0\n"


async def test_sysrq_is_pressed_where_the_guest_allows_it(tmp_path: Path, guest: Guest) -> None:
    guest.write("proc/sys/kernel/sysrq", "16\n")
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            for key in (b"b", b"s"):
                await ask(asking, b"control/sysrq", key)
                await told(serving, "control/sysrq", b"")
            await until(lambda: guest.read("proc/sysrq-trigger") == "s")


async def test_processors_go_on_and_off(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            await ask(asking, b"cpu/1/availability", b"online")
            await until(lambda: guest.read("sys/devices/system/cpu/cpu1/online").startswith("1"))
            await ask(asking, b"cpu/2/availability", b"offline")
            await until(lambda: guest.read("sys/devices/system/cpu/cpu2/online").startswith("0"))


async def test_a_processor_may_come_late_its_switch_later_still_and_refuse_at_first(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = processors.changes, count()
    place = guest.root / "sys/devices/system/cpu/cpu3"
    switch = place / "online"

    def changes(root: str, availability: dict[int, bytes]) -> list[tuple[str, str]]:
        """What the kernel does meanwhile."""
        number = next(looks) if 3 in availability else 0
        if number == 3:
            place.mkdir()
        elif number == 8:
            switch.symlink_to("/dev/full")
        elif number == 13:
            switch.unlink()
            switch.write_text("0\n")
        return look(root, availability)

    monkeypatch.setattr(session, "PLUGGING", 0.02)
    monkeypatch.setattr(processors, "changes", changes)
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            await ask(asking, b"cpu/3/availability", b"online")
            await until(lambda: switch.is_file() and switch.read_text().startswith("1"))


async def test_remote_desktop_goes_on_and_off_again(tmp_path: Path, guest: Guest) -> None:
    guest.codes[FIREWALLD] = 3
    guest.output[NFT] = RULESET
    matching = ("tcp", "dport", "3389", "accept", "comment", '"domzero-guest"')
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        await asking.ask(Operation.WATCH, HOME + b"data/ts\0t\0")
        await asking.event()
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/ts", b"0")
            await asking.event()
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            assert value(serving, "control/feature-ts") == value(serving, "control/feature-ts2") == b"1"

            await ask(asking, b"control/ts", b"1")
            await told(serving, "control/ts", None)
            await told(serving, "data/ts", b"1")
            assert ("systemctl", "enable", "--now", "xrdp.service") in guest.ran
            assert ("nft", "add", "rule", "inet", "filter", "input", *matching) in guest.ran
            assert [(await asking.event())[0] for _ in range(2)] == [HOME + b"data/ts"] * 2, "removed, then told anew"

            await asking.ask(Operation.RM, HOME + b"data/ts\0")
            await told(serving, "data/ts", b"1")

            await ask(asking, b"control/ts", b"0")
            await told(serving, "control/ts", None)
            await told(serving, "data/ts", b"0")
            assert ("systemctl", "disable", "--now", "xrdp.service") in guest.ran
            assert ("systemctl", "disable", "xrdp-sesman.service") in guest.ran, "it would bring xrdp back at a boot"


async def test_remote_desktop_that_nobody_may_switch_is_not_offered(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        await ask(await populate(serving), b"control/ts", b"1")
        async with guest.agent(await serving.path(1), choice="off"):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
        assert value(serving, "control/feature-ts") is None
        assert value(serving, "data/ts") is None
        assert value(serving, "control/ts") == b"1"
        assert guest.ran == []


async def test_the_port_closes_and_opens_again(tmp_path: Path, guest: Guest) -> None:
    (tmp_path / "second").mkdir()
    path = tmp_path / "port"
    async with host(tmp_path) as first:
        await populate(first)
        path.symlink_to(await first.path(1))
        async with guest.agent(path):
            await told(first, "data/updated", b"19700101T00:16:40Z")
            await first.close()
            async with host(tmp_path / "second") as second:
                asking = await populate(second)
                path.unlink()
                path.symlink_to(await second.path(1))
                await told(second, "data/updated", b"19700101T00:16:40Z")
                await ask(asking, b"control/shutdown", b"reboot")
                await until(lambda: ("systemctl", "reboot") in guest.ran)
    assert guest.clock == [], "it is the same domain: time has not stood still"


async def test_a_machine_that_was_resumed_begins_anew_with_the_right_time(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK", 0.02)
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            guest.write("sys/class/rtc/rtc0/since_epoch", "5000\n")
            for directory in (b"attr", b"data"):
                await asking.ask(Operation.RM, HOME + directory + b"\0")
                await asking.ask(Operation.WRITE, HOME + directory + b"\0")
                await asking.ask(Operation.SET_PERMS, HOME + directory + b"\0n1\0")
            await ask(asking, b"domid", b"7")
            await told(serving, "data/os_distro", b"example")
            await told(serving, "data/ts", b"0")
            await until(lambda: guest.clock)
        assert guest.clock == [pytest.approx(5000, abs=2)]


async def test_watches_that_the_host_let_go_of_are_there_again(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK", 0.02)
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            (connection,) = serving.store.domains[1].connections
            connection.begin_anew()  # type: ignore[attr-defined]
            await ask(asking, b"control/ts", b"1")
            await told(serving, "control/ts", None)
            await told(serving, "data/ts", b"1")


async def test_what_the_host_refuses_is_left_out(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        await asking.ask(Operation.SET_PERMS, HOME + b"control\0n0\0r1\0")
        await ask(asking, b"control/shutdown", b"poweroff")
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
        assert value(serving, "control/feature-ts") is None
        assert ("systemctl", "poweroff") not in guest.ran, "it could not be acknowledged, and would come again"


BROKEN = {
    "too long": struct.pack("=IIII", 2, 1, 0, 5000),
    "half a header": b"\x02\0\0\0\0",
    "another operation": None,
    "nothing": b"",
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_host_is_asked_again_at_leisure(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(agent_module, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    attempts = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        header = await reader.readexactly(16)
        _, number, _, _ = struct.unpack("=IIII", header)
        broken = BROKEN[kind]
        writer.write(struct.pack("=IIII", 3, number, 0, 0) if broken is None else broken)
        if kind == "half a header":
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    async with guest.agent(tmp_path / "s"):
        await until(lambda: attempts >= 2)
        await asyncio.sleep(0.2)
    server.close()
    await server.wait_closed()
    assert 2 <= attempts <= 5


async def test_events_that_nobody_asked_for_and_old_replies_are_nobodys(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(16)
        _, number, _, length = struct.unpack("=IIII", header)
        await reader.readexactly(length)
        for operation, request, payload in (
            (15, 0, b"x\0token\0"),
            (15, 0, b"no end"),
            (2, number - 1, b"old"),
            (2, number, b"new"),
        ):
            writer.write(struct.pack("=IIII", operation, request, 0, len(payload)) + payload)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))

    def read() -> tuple[bytes, dict[str, None]]:
        stream = store.Stream(str(tmp_path / "s"))
        asking = store.Store(stream)
        try:
            return asking.read("a"), asking.changed
        finally:
            stream.close()

    assert await asyncio.to_thread(read) == (b"new", {})
    server.close()
    await server.wait_closed()


async def test_a_host_that_lists_more_cards_than_there_are_is_bounded(tmp_path: Path, guest: Guest) -> None:
    async with host(tmp_path) as serving:
        asking = await populate(serving)
        for number in range(60):
            await ask(asking, b"device/vif/%d/mac" % number, b"02:00:00:00:00:01")
        async with guest.agent(await serving.path(1)):
            await told(serving, "data/updated", b"19700101T00:16:40Z")
            await ask(asking, b"control/shutdown", b"poweroff")
            await until(lambda: ("systemctl", "poweroff") in guest.ran)
        assert value(serving, f"attr/vif/{session.MOST_CARDS - 1}/ipv4/0") == b"192.0.2.10"
        assert value(serving, f"attr/vif/{session.MOST_CARDS}") is None
