"""What a real guest does when it is asked, seen on both sides."""

from __future__ import annotations

import time
from functools import partial

import pytest
import XenAPI

from domzero.toolstack.vm import plugins
from domzero.toolstack.xenstore import guests
from tests.talking.guest import TalkingGuest, shows, soon

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT = "guest-agent-operation"
DESKTOP = "nc -w 1 127.0.0.1 3389 </dev/null 2>/dev/null"
"""What connects to the remote desktop, through the guest's firewall."""


def test_remote_desktop_is_switched_by_the_host(guest: TalkingGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service and the firewall inside, the nodes between, and the API outside: all say the same."""
    assert guest.metrics()["other"]["data-ts"] == "0"
    assert guest.run(f"{DESKTOP} || echo nobody") == "nobody"
    guest.run("xenstore-watch -n 5 control/ts data/ts >/tmp/heard &")
    soon(lambda: guest.watches_of("data/ts") == 2, 20)
    assert guest.api.VM.call_plugin(guest.vm, AGENT, "request_rdp_on", {}) == ""
    soon(lambda: guest.metrics()["other"].get("data-ts") == "1", 20)
    assert guest.eventually(DESKTOP) == "a desktop"
    assert guest.run("nft list ruleset | grep -c domzero-guest") == "1"
    assert guest.node("control/ts") is None
    # One for each watch that is set; then the request, its acknowledgement, and the state, which is taken back.
    heard = guest.run("wait; cat /tmp/heard").splitlines()
    assert sorted(heard[:2]) == ["control/ts", "data/ts"]
    assert heard[2:] == ["control/ts", "control/ts", "data/ts"]
    with pytest.raises(XenAPI.Failure, match="VM_CALL_PLUGIN_RATE_LIMIT"):
        guest.api.VM.call_plugin(guest.vm, AGENT, "request_rdp_off", {})
    monkeypatch.setattr(plugins, "INTERVAL", 0.0)
    assert guest.api.VM.call_plugin(guest.vm, AGENT, "request-rdp-off", {}) == ""
    soon(lambda: guest.metrics()["other"].get("data-ts") == "0", 20)
    assert guest.run(f"{DESKTOP} || echo nobody") == "nobody"
    assert guest.run("nft list ruleset | grep -c domzero-guest || true") == "0"
    # That its program let go of the port is seen a moment later; till then the next one would be told of its watches.
    soon(lambda: guest.watches_of("data/ts") == 1)


def test_the_firewall_is_what_lets_remote_desktop_in(guest: TalkingGuest) -> None:
    """A service that was started by the guest itself is told of, but nobody comes through until the host asks."""
    guest.run("systemctl start xrdp.service")
    # An event for the program that had the port before may come first, and these tools take it for a bad answer.
    guest.eventually("xenstore-rm data/ts")
    soon(lambda: guest.metrics()["other"].get("data-ts") == "1", 20)
    assert guest.run(f"{DESKTOP} || echo nobody") == "nobody"
    guest.write("control/ts", b"1")
    assert guest.eventually(DESKTOP) == "a desktop"
    guest.write("control/ts", b"0")
    soon(lambda: guest.metrics()["other"].get("data-ts") == "0", 20)


def test_a_key_is_pressed(guest: TalkingGuest) -> None:
    guest.write("control/sysrq", b"s")
    guest.eventually("dmesg | grep 'Emergency Sync'")
    assert guest.node("control/sysrq") == b"", "acknowledged"
    guest.run("echo 0 >/proc/sys/kernel/sysrq; dmesg -c >/dev/null")
    guest.write("control/sysrq", b"s")
    soon(lambda: "not allowed by kernel.sysrq" in guest.agent_said())
    assert "Emergency Sync" not in guest.run("dmesg; echo 1 >/proc/sys/kernel/sysrq")


def test_a_suspended_guest_goes_on_as_another_domain_with_the_right_time(guest: TalkingGuest) -> None:
    before = guest.domid
    guest.api.VM.suspend(guest.vm)
    since = time.monotonic()
    assert guest.metrics()["os_version"]["distro"] == "tiny", "what was known is kept"
    time.sleep(max(0.0, since + 4 - time.monotonic()))
    guest.api.VM.resume(guest.vm, False, False)
    guest.listen()
    assert guest.domid != before
    soon(lambda: guest.node("data/updated"), 30)
    assert guest.run("xenstore-read domid") == str(guest.domid)
    soon(lambda: "the machine stood still" in guest.agent_said(), 20)
    asked = time.time()
    clock = int(guest.run("date +%s"))
    assert asked - 3 <= clock <= time.time() + 3
    guest.run("ip address add 192.0.2.8/32 dev eth0")
    soon(lambda: shows(guest, "192.0.2.8"))
    guest.run("ip address del 192.0.2.8/32 dev eth0")


def test_a_request_to_suspend_is_acknowledged(guest: TalkingGuest) -> None:
    guest.write("control/shutdown", b"suspend")
    soon(lambda: guest.node("control/shutdown") == b"")
    soon(lambda: "the host asks for suspend" in guest.agent_said())


def test_the_agent_goes_on_when_the_daemon_does(guest: TalkingGuest) -> None:
    agent = guest.run("cat /run/services/domzero-guest.service")
    guest.restart_host()
    assert guest.metrics()["networks"]["0/ip"] == "10.0.2.15"
    guest.run("ip address add 192.0.2.9/32 dev eth0")
    soon(lambda: shows(guest, "192.0.2.9"), 20)
    guest.run("ip address del 192.0.2.9/32 dev eth0")
    assert guest.eventually("xenstore-read name") == "talks"
    assert (
        guest.run("kill -0 $(cat /run/services/domzero-guest.service); cat /run/services/domzero-guest.service")
        == agent
    )
    assert "the host has closed the port" in guest.agent_said()


def test_a_guest_whose_agent_was_killed_is_not_live(guest: TalkingGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is there says so when something changes, and then a guest is live; one that was killed does not."""
    silence = 3.0
    monkeypatch.setattr(guests, "SILENCE", silence)
    for address in ("192.0.2.10", "192.0.2.11", "192.0.2.12"):
        guest.run(f"ip address add {address}/32 dev eth0")
        soon(partial(shows, guest, address))
        # That the report is complete is said last.
        soon(lambda: guest.metrics()["live"])
        time.sleep(silence / 3)
    guest.run("kill -9 $(cat /run/services/domzero-guest.service)")
    guest.run("ip address add 192.0.2.99/32 dev eth0")
    soon(lambda: not guest.metrics()["live"])
    assert not shows(guest, "192.0.2.99")
    guest.run("systemctl start domzero-guest.service")
    soon(lambda: guest.metrics()["live"], 30)
    assert shows(guest, "192.0.2.99")
    guest.run("for last in 10 11 12 99; do ip address del 192.0.2.$last/32 dev eth0; done")


def test_processors_are_brought_online_and_offline(guest: TalkingGuest) -> None:
    assert guest.run("nproc") == "1"
    guest.api.VM.set_VCPUs_number_live(guest.vm, "2")
    guest.eventually("[ $(nproc) = 2 ]")
    assert guest.run("xenstore-read cpu/1/availability") == "online"
    guest.write("cpu/1/availability", b"offline")
    guest.eventually("[ $(nproc) = 1 ]")
    guest.write("cpu/1/availability", b"online")
    guest.eventually("[ $(nproc) = 2 ]")
