"""The clock after the machine has stood still: the hardware clock has gone on, the kernel's has not.

A machine that was suspended, paused, or taken back to a snapshot is told nothing of it. That it stood still is seen
from the hardware clock, which has gone on while the time since boot has not.
"""

import logging
import os
from typing import Callable, NamedTuple, Optional

log = logging.getLogger(__name__)

TOLERANCE = 2.0
"""Seconds of lag that are left to NTP: the hardware clock knows whole seconds only."""


class Reading(NamedTuple):
    """The three clocks at one moment, in seconds: the hardware's, the time since boot, and the system's."""

    hardware: float
    monotonic: float
    now: float


def correction(before: Reading, after: Reading) -> Optional[float]:
    """What to set the system's clock to, None where it needs nothing.

    It never goes back, for which programs are not prepared, nor past the hardware clock: that one may have been set
    itself, by NTP's means, which looks as if the machine had stood still.
    """
    passed = after.monotonic - before.monotonic
    stood = after.hardware - before.hardware - passed
    followed = after.now - before.now - passed
    wanted = min(after.now + stood - followed, after.hardware + 1)
    return wanted if stood > TOLERANCE and wanted - after.now > TOLERANCE else None


class Timekeeper:
    """Sets the clock when it is looked at after a standstill. Files are below `root`."""

    def __init__(
        self,
        root: str,
        monotonic: Callable[[], float],
        now: Callable[[], float],
        set_clock: Callable[[float], None],
    ) -> None:
        self._root = root
        self._monotonic = monotonic
        self._now = now
        self._set_clock = set_clock
        self._before: Optional[Reading] = None

    def look(self) -> None:
        """Compare the clocks with what they were at the last look. That setting fails is logged."""
        hardware = hardware_clock(self._root)
        if hardware is None:
            return
        before, after = self._before, Reading(hardware, self._monotonic(), self._now())
        self._before = after
        wanted = None if before is None else correction(before, after)
        if wanted is None:
            return
        try:
            self._set_clock(wanted)
        except OSError as error:
            log.error("the clock cannot be set: %s", error.strerror)
            return
        self._before = after._replace(now=wanted)
        log.info("the machine stood still; the clock was %d seconds behind", wanted - after.now)


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
