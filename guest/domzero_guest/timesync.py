"""The clock after the machine has stood still: the hardware clock has gone on, the kernel's has not."""

import logging
import os
from typing import Callable, Optional

log = logging.getLogger(__name__)

TOLERANCE = 2.0
"""Seconds of lag that are left to NTP: the hardware clock knows whole seconds only."""


def lagging(now: float, hardware: float) -> bool:
    """Whether the clock is to be set. Never back: programs are not prepared for that."""
    return hardware - now > TOLERANCE


def hardware_clock(root: str) -> Optional[float]:
    """Seconds since the epoch as the hardware clock says, None where there is none or it keeps local time."""
    try:
        with open(os.path.join(root, "etc/adjtime")) as file:
            if "LOCAL" in file.read(256).split():
                return None
    except OSError:
        log.debug("no /etc/adjtime: the hardware clock keeps UTC")
    try:
        with open(os.path.join(root, "sys/class/rtc/rtc0/since_epoch")) as file:
            return float(int(file.read(32)))
    except (OSError, ValueError):
        return None


def catch_up(root: str, now: float, set_clock: Callable[[float], None]) -> None:
    """Set the clock where it lags behind the hardware's."""
    hardware = hardware_clock(root)
    if hardware is None or not lagging(now, hardware):
        return
    try:
        set_clock(hardware)
    except OSError as error:
        log.error("the clock cannot be set: %s", error.strerror)
        return
    log.info("the clock was %d seconds behind", hardware - now)
