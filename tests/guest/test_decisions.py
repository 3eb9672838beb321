"""What the agent decides, without any host."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from guest.domzero_guest import firewall, netlink, power, processors, report, settings, timesync
from guest.domzero_guest.commands import Done, run, succeeded
from guest.domzero_guest.desktop import Desktop
from guest.domzero_guest.netlink import Address
from guest.domzero_guest.report import Interface, Mount

CARD, BRIDGE, OTHER = (
    Interface(2, "02:00:00:00:00:01", True),
    Interface(3, "02:00:00:00:00:01", False),
    Interface(4, "02:00:00:00:00:02", True),
)


def test_addresses_are_told_by_card_with_the_farthest_reaching_first() -> None:
    addresses = [
        Address(3, socket.AF_INET, 0, "198.51.100.1"),
        Address(2, socket.AF_INET6, 253, "fe80::1"),
        Address(2, socket.AF_INET6, 0, "2001:db8::1"),
        Address(2, socket.AF_INET, 0, "192.0.2.1"),
        Address(2, socket.AF_INET, 0, "192.0.2.2"),
        Address(4, socket.AF_INET, 0, "203.0.113.1"),
        Address(9, socket.AF_INET, 0, "203.0.113.9"),
    ]
    cards = {0: "02:00:00:00:00:01", 3: "02:00:00:00:00:02", 5: "02:00:00:00:00:05"}
    assert report.address_nodes(cards, [CARD, BRIDGE, OTHER], addresses) == {
        "attr/vif/0/ipv4/0": "192.0.2.1",
        "attr/vif/0/ipv4/1": "192.0.2.2",
        "attr/vif/0/ipv4/2": "198.51.100.1",
        "attr/vif/0/ipv6/0": "2001:db8::1",
        "attr/vif/0/ipv6/1": "fe80::1",
        "attr/vif/3/ipv4/0": "203.0.113.1",
    }


def test_a_card_with_many_addresses_is_cut_short() -> None:
    many = [Address(2, socket.AF_INET, 0, f"192.0.2.{number}") for number in range(100)]
    assert len(report.address_nodes({0: CARD.mac}, [CARD], many)) == report.MOST_ADDRESSES


@pytest.mark.parametrize(
    ("os_release", "name", "distro", "major", "minor"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian', "Debian GNU/Linux 12 (bookworm)",
         "debian", "12", None),
        ("NAME='SLES'\nVERSION_ID=15.4.1\nID=\"sles\"\n# ID=no", "SLES", "sles", "15", "4"),
        ("", "Linux", "linux", None, None),
        ('PRETTY_NAME="a\x07b"\nnonsense\n=\nID=' + "x" * 5000, "a b", "x" * report.LONGEST, None, None),
    ],
)  # fmt: skip
def test_the_system(os_release: str, name: str, distro: str, major: str | None, minor: str | None) -> None:
    nodes = report.system_nodes(os_release, "6.1")
    assert nodes["data/os_uname"] == "6.1"
    assert (nodes["data/os_name"], nodes["data/os_distro"]) == (name, distro)
    assert (nodes.get("data/os_majorver"), nodes.get("data/os_minorver")) == (major, minor)


def test_memory_of_old_kernels_and_of_none() -> None:
    assert report.memory_nodes("MemTotal:  5 kB\nMemFree:  3 kB\n") == {
        "data/meminfo_total": "5",
        "data/meminfo_free": "3",
    }
    assert report.memory_nodes("") == {}


def test_volumes_are_disks_each_once() -> None:
    mountinfo = """22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 254:1 /home /home rw - ext4 /dev/vda1 rw
24 22 0:5 / /proc rw - proc proc rw
25 22 254:2 / /srv/a\\040b rw master:1 propagate_from:2 - xfs /dev/vda2 rw
26 22 7:1 / /snap/x ro - squashfs /dev/loop1 ro
27 22 8:1 / /mnt rw - fuseblk /dev/sda1 rw
nonsense
"""
    assert report.mounts(mountinfo) == [Mount("/dev/vda1", "/", "ext4"), Mount("/dev/vda2", "/srv/a b", "xfs")]
    many = "\n".join(f"1 1 8:{n} / /m{n} rw - ext4 /dev/sd{n} rw" for n in range(99))
    assert len(report.mounts(many)) == report.MOST_VOLUMES


def test_stale_nodes_are_removed_as_high_up_as_can_be() -> None:
    tree = {"attr/vif": ["0", "1"], "attr/vif/0": ["ipv4", "ipv6"], "attr/vif/0/ipv4": ["0", "1"]}
    wanted = {"attr/vif/0/ipv4/0": "192.0.2.1"}
    gone = report.stale(lambda path: tree.get(path, []), wanted, "attr/vif")
    assert gone == ["attr/vif/0/ipv4/1", "attr/vif/0/ipv6", "attr/vif/1"]


def test_shutdown_without_systemd() -> None:
    asked = power.shutdown(b"reboot", systemd=False)
    assert asked is not None
    assert asked.command == ("shutdown", "-r", "now")
    assert power.shutdown(b"suspend", systemd=False) == ("suspend", None)
    assert power.shutdown(b"crash", systemd=True) is None


@pytest.mark.parametrize(
    ("value", "allowed", "key"),
    [(b"s", 1, "s"), (b"s", 16, "s"), (b"s", 128, None), (b"b", 438, "b"), (b"b", 0, None), (b"S", 1, None),
     (b"ss", 1, None), (b"", 1, None), (b"\n", 1, None), (b"\xff", 1, None)],
)  # fmt: skip
def test_sysrq_keys(value: bytes, allowed: int, key: str | None) -> None:
    assert power.sysrq_key(value, allowed) == key


def test_processor_numbers_are_numbers() -> None:
    assert processors.numbers(["1", "0", "01", "-1", "../1", "99999", "1000", "x"]) == [0, 1, 1000]


def test_the_clock_goes_forward_only(tmp_path: Path) -> None:
    before = timesync.Reading(hardware=1000.0, monotonic=50.0, now=1000.5)
    for after, wanted in (
        (timesync.Reading(5000.0, 55.0, 1005.5), 4995.5 + 5.0),  # stood still for 3995 seconds
        (timesync.Reading(5000.0, 55.0, 5000.5), None),  # somebody has set it already
        (timesync.Reading(1006.0, 55.0, 1005.5), None),  # time has passed
        (timesync.Reading(5.0, 55.0, 1005.5), None),  # the hardware clock was set back
        (timesync.Reading(1005.0, 55.0, 400.5), None),  # the system's clock was
        (timesync.Reading(5000.0, 55.0, 3000.5), 5000.5),  # by hand, but not enough
    ):
        assert timesync.correction(before, after) == wanted, after
    behind = timesync.Reading(hardware=1000.0, monotonic=50.0, now=4600.0)
    assert timesync.correction(behind, timesync.Reading(4605.0, 55.0, 4605.0)) is None, "NTP has set the hardware's"
    assert timesync.hardware_clock(str(tmp_path)) is None
    clock = tmp_path / "sys/class/rtc/rtc0/since_epoch"
    clock.parent.mkdir(parents=True)
    clock.write_text("77\n")
    assert timesync.hardware_clock(str(tmp_path)) == 77.0
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/adjtime").write_text("0.0 0 0.0\n0\nLOCAL\n")
    assert timesync.hardware_clock(str(tmp_path)) is None, "what it says is not UTC"


def chain(name: str, **more: Any) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "filter", "name": name, **more}}


def rule(chain: str, handle: int, *expressions: str, **more: Any) -> dict[str, Any]:
    expr = [{expression: None} for expression in expressions]
    return {"rule": {"family": "inet", "table": "filter", "chain": chain, "handle": handle, "expr": expr, **more}}


INPUT = {"type": "filter", "hook": "input"}


def test_the_port_is_let_in_where_the_unknown_is_refused_and_after_what_is_refused() -> None:
    ruleset = [
        {"metainfo": {}},
        chain("dropping", **INPUT, policy="drop"),
        chain("rejecting", **INPUT, policy="accept"),
        chain("open", **INPUT, policy="accept"),
        chain("forward", type="filter", hook="forward", policy="drop"),
        chain("x; flush ruleset", **INPUT, policy="drop"),
        chain("plain"),
        rule("dropping", 1, "match", "drop"),
        rule("rejecting", 2, "match", "accept"),
        rule("rejecting", 3, "counter", "reject"),
        rule("open", 4, "match", "drop"),
        rule("rejecting", 9, "match", "accept", comment=firewall.COMMENT),
        "nonsense",
    ]
    accept = ("tcp", "dport", "3389", "accept", "comment", '"domzero-guest"')
    assert firewall.openings(ruleset) == [
        ("nft", "add", "rule", "inet", "filter", "dropping", *accept),
        ("nft", "insert", "rule", "inet", "filter", "rejecting", "handle", "3", *accept),
    ]
    assert firewall.removals(ruleset) == [
        ("nft", "delete", "rule", "inet", "filter", "rejecting", "handle", "9"),
    ]


def test_firewalld_goes_first_and_a_guest_without_either_is_left_alone() -> None:
    ran: list[tuple[str, ...]] = []

    def with_firewalld(arguments: Any) -> Done:
        ran.append(tuple(arguments))
        return Done(0, b"")

    firewall.open_port(with_firewalld)
    firewall.close_port(with_firewalld)
    assert [row[-1] for row in ran if row[0] == "firewall-cmd"] == ["--add-port=3389/tcp"] * 2 + [
        "--remove-port=3389/tcp"
    ] * 2
    assert [row[2] for row in ran if row[0] == "firewall-cmd"][1::2] == ["--permanent"] * 2

    ran.clear()

    def with_nothing(arguments: Any) -> Done:
        ran.append(tuple(arguments))
        return Done(127, b"")

    firewall.open_port(with_nothing)
    assert [row[0] for row in ran] == ["systemctl", "nft"]
    assert firewall.removals(json.loads('[{"rule": 5}, {"rule": {"comment": "domzero-guest"}}]')) == []


@pytest.mark.parametrize(("code", "disabled"), [(0, True), (1, False), (4, False)])
def test_xrdps_session_manager_is_disabled_where_it_is_enabled(tmp_path: Path, code: int, disabled: bool) -> None:
    """Debian enables both and binds the manager to xrdp, so a boot would start xrdp with it."""
    ran: list[tuple[str, ...]] = []

    def answer(arguments: Any) -> Done:
        ran.append(tuple(arguments))
        return Done(code if "is-enabled" in arguments else 0, b"")

    Desktop(answer, "xrdp", str(tmp_path / "kept")).turn(False)
    assert ("systemctl", "disable", "--now", "xrdp.service") in ran
    assert (("systemctl", "disable", "xrdp-sesman.service") in ran) is disabled


def test_gnomes_remote_desktop_is_used_where_xrdp_is_not(tmp_path: Path) -> None:
    ran: list[tuple[str, ...]] = []

    def answer(arguments: Any) -> Done:
        ran.append(tuple(arguments))
        return Done(int("xrdp.service" in arguments), b"")

    kept = tmp_path / "kept/remote-desktop"
    Desktop(answer, "auto", str(kept)).turn(True)
    assert ("grdctl", "--system", "rdp", "enable") in ran
    assert ("systemctl", "enable", "--now", "gnome-remote-desktop.service") in ran
    assert kept.exists()
    ran.clear()
    Desktop(answer, "auto", str(kept)).restore()
    assert ("firewall-cmd", "--quiet", "--add-port=3389/tcp") in ran
    Desktop(answer, "auto", str(kept)).turn(False)
    assert not kept.exists()
    ran.clear()
    Desktop(answer, "auto", str(kept)).restore()
    assert ran == []


def test_the_kernels_answer_is_read(tmp_path: Path) -> None:
    def message(kind: int, body: bytes) -> bytes:
        return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value

    def address(flags: int, *attributes: bytes) -> bytes:
        return message(20, struct.pack("=BBBBi", socket.AF_INET, 24, flags, 0, 2) + b"".join(attributes))

    peer, local = attribute(1, bytes([192, 0, 2, 1])), attribute(2, bytes([192, 0, 2, 2]))
    data = address(0, peer, local) + address(0x40, local) + address(0, attribute(2, b"abc")) + message(16, b"link")
    assert netlink.parsed(data) == ([Address(2, socket.AF_INET, 0, "192.0.2.2")], False)
    assert netlink.parsed(message(3, bytes(4))) == ([], True)
    assert netlink.parsed(b"\x05\0\0\0" + bytes(12)) == ([], False)
    with pytest.raises(OSError, match="does not tell"):
        netlink.parsed(message(2, bytes(20)))


def test_the_kernel_tells_of_the_loopback_address() -> None:
    loopback = socket.if_nametoindex("lo")
    assert (loopback, "127.0.0.1") in [(each.interface, each.text) for each in netlink.addresses()]
    with netlink.notices() as notices:
        assert not netlink.drain(notices)


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    assert settings.load(str(file), {}) == settings.Settings()
    file.write_text("[agent]\ndevice = /dev/x\nremote-desktop = off\ntime-sync = no\n")
    assert settings.load(str(file), {}) == settings.Settings(("/dev/x",), "off", False)
    assert settings.load(str(file), {"XENSTORED_PATH": "/dev/y"}).devices == ("/dev/y",)
    assert settings.device(settings.Settings((str(tmp_path / "none"), str(file)))) == str(file)
    assert settings.device(settings.Settings((str(tmp_path / "none"),))) == str(tmp_path / "none")


def test_a_machine_with_one_processor_can_be_given_another(tmp_path: Path) -> None:
    assert not processors.can_change(str(tmp_path))
    (tmp_path / "sys/devices/system/cpu/cpu0").mkdir(parents=True)
    assert not processors.can_change(str(tmp_path))
    (tmp_path / "sys/devices/system/cpu/hotplug").mkdir()
    assert processors.can_change(str(tmp_path))


@pytest.mark.parametrize("text", ["[agent]\nremote-desktop = vnc", "[agent]\ntime-sync = maybe", "x", "[agent]\na = b"])
def test_settings_that_make_no_sense(tmp_path: Path, text: str) -> None:
    (tmp_path / "conf").write_text(text)
    with pytest.raises(settings.SettingsError, match="conf"):
        settings.load(str(tmp_path / "conf"), {})


def test_programs_are_run_without_a_shell(tmp_path: Path) -> None:
    assert run(["printf", "%s", "$(id) `id`; id"]) == Done(0, b"$(id) `id`; id")
    assert run(["domzero-has-no-such-program"]).code == 127
    assert not succeeded(run, "false")
    assert run(["sh", "-c", "test -t 0 || cat"]).output == b"", "nothing can be typed to it"
    assert os.environ.get("LC_ALL") is None or run(["printenv", "LC_ALL"]).output == b"C\n"
