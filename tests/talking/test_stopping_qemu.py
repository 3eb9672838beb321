"""A real guest that is asked to stop: its agent does it, not the power button, which this guest only speaks of."""

from __future__ import annotations

import pytest

from tests.talking.guest import NOTHING, TalkingGuest, soon

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_power_button_would_be_heard(guest: TalkingGuest) -> None:
    guest.api.VM.send_trigger(guest.vm, "power")
    soon(lambda: "power button" in guest.serial_log(guest.domid), 20)


def test_a_clean_reboot_is_the_agents_work(guest: TalkingGuest) -> None:
    before = guest.domid
    said = guest.ending_log()
    guest.api.VM.clean_reboot(guest.vm)
    assert said()[-1] == "stopping (reboot)"
    guest.listen()
    assert guest.domid != before
    guest.wait_until_it_talks()
    assert guest.metrics()["live"]


def test_a_clean_shutdown_is_the_agents_work(guest: TalkingGuest) -> None:
    pressed = guest.serial_log(guest.domid).count("power button")
    said = guest.ending_log()
    guest.api.VM.clean_shutdown(guest.vm)
    assert said()[-1] == "stopping (poweroff)"
    assert said().count("power button") == pressed
    assert guest.api.VM.get_power_state(guest.vm) == "Halted"
    assert guest.api.VM.get_guest_metrics(guest.vm) == NOTHING
